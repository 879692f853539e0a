package peers

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shocker.sh/lib/testkit"
)

// programLimit ends a validation program that hangs.
const programLimit = time.Minute

// conformanceCore are the programs that take the least time for what they
// look at.
var conformanceCore = []string{
	"create", "default", "delete_only_create_resources", "linux_cgroups_pids", "linux_cgroups_relative_memory",
	"linux_devices", "linux_ns_itype", "linux_ns_path_type", "linux_sysctl", "linux_uid_mappings", "mounts",
	"process", "process_oom_score_adj", "process_rlimits", "process_user", "root_readonly_true", "start", "state",
}

// Each validation program of OCI runtime-tools runs against both runtimes. It
// fails if it, or one of its assertions, passes with the reference only.
func TestConformance(t *testing.T) {
	if testing.Short() {
		t.Skip("its programs wait for seconds")
	}
	testkit.Requires(t, "validation", reference)
	dir := testkit.Validation()
	programs := conformanceCore
	if all {
		programs = nil
		entries, err := os.ReadDir(filepath.Join(dir, "bin"))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			programs = append(programs, e.Name())
		}
	}
	for _, p := range programs {
		t.Run(p, func(t *testing.T) {
			t.Parallel()
			on(t, func(t *testing.T, h *testkit.Host) {
				program := filepath.Join(dir, "bin", p)
				ref, refText, refLeft := validate(t, h, program, reference)
				o, text, left := validate(t, h, program, candidate)
				lacks := o.lacks(ref)
				if left != "" && refLeft == "" {
					lacks = append(lacks, "left behind: "+left)
				}
				verdict := "same"
				switch {
				case len(lacks) > 0:
					verdict = "WORSE"
					t.Errorf("%s can do what %s cannot:\n%s\n\n%s:\n%s\n%s:\n%s",
						reference, candidate, strings.Join(lacks, "\n"), reference, refText, candidate, text)
				case len(ref.lacks(o)) > 0:
					verdict = "better"
				case !ref.passed() && !o.passed():
					verdict = "both fail"
				}
				tell(t, "program", p, ref.String(), o.String(), verdict)
			})
		})
	}
}

// validate runs a program against a runtime and cleans up what that left,
// which it tells.
func validate(t *testing.T, h *testkit.Host, program, runtime string) (o outcome, text, left string) {
	t.Helper()
	before := h.Snapshot(t)
	limit := testkit.Patience(programLimit)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, program)
	cmd.Dir = filepath.Dir(filepath.Dir(program)) // with the root file system and runtimetest
	cmd.Env = append(os.Environ(), "RUNTIME="+path(t, runtime))
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = testkit.Patience(time.Second)
	end := ""
	if err := cmd.Run(); ctx.Err() != nil {
		end = "still runs after " + limit.String()
	} else if err != nil {
		end = err.Error()
	}
	left = leftovers(t, h, before)
	sweep(t, h, before)
	return parse(out.String(), end), out.String(), left
}
