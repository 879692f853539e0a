package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"shocker.sh/lib/testkit"
)

// left is what a container left, without what differs between containers.
type left struct {
	result testkit.Result
	record string
	undo   string
	kernel string
}

// leave runs a script that makes one container, and takes that away again.
func leave(t *testing.T, h *testkit.Host, script string) left {
	t.Helper()
	h.Must(t, "gc") // what belongs to the host goes
	before := h.Snapshot(t)
	l := left{result: h.Sh(t, script)}
	all := ids(t, h)
	if len(all) == 0 { // --rm
		h.Settle(t, before, "links", "nft", "addresses", "mounts", "files")
		return l
	}
	if len(all) != 1 {
		t.Fatalf("%s left %q; want one container", script, all)
	}
	id := all[0]
	l.record = normal(record(t, h, id))
	entries, err := os.ReadDir(filepath.Join(h.RunDir, id, "undo"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		l.undo += e.Name() + "\n"
	}
	now := h.Snapshot(t)
	l.kernel = idPattern.ReplaceAllString(testkit.Diff(before, now, "links", "nft", "addresses", "processes"), "ID")
	limits := ok(t, h.Sh(t, "for f in cpu.shares memory.limit_in_bytes pids.max cpu.cfs_quota_us memory.max cpu.weight cpu.max; do cat /sys/fs/cgroup/*/"+id+"/$f /sys/fs/cgroup/"+id+"/$f 2>/dev/null || true; done"))
	l.kernel += limits
	l.result.Stdout = idPattern.ReplaceAllString(l.result.Stdout, "ID")
	l.result.Stdout = strings.ReplaceAll(l.result.Stdout, strings.Trim(addressPattern.FindString(record(t, h, id)), `"`), "ADDRESS")
	ok(t, h.Sh(t, "shocker stop -t 1 "+id+" >/dev/null; shocker rm -f "+id))
	return l
}

// TestRunIsItsPipeline: for every flag, run and the line that run -n prints do
// the same and leave the same behind.
func TestRunIsItsPipeline(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		if err := os.Setenv("FROM_OUTSIDE", "outside"); err != nil {
			t.Fatal(err)
		}
		for i, test := range []struct{ flags, command string }{
			{"", "echo hello"},
			{"", "sh -c 'exit 7'"},
			{"", "'echo one; echo two >&2 | cat'"},
			{"", "nosuchprogram"},
			{"-e A=b -e FROM_OUTSIDE -e 'C=d e'", "env"},
			{"-w /tmp", "pwd"},
			{"-u 33:44", "id"},
			{"--name web", "hostname"},
			{"--hostname web", "cat /etc/hosts /etc/hostname"},
			{"--entrypoint /bin/echo", "hello"},
			{"--entrypoint ''", "echo hello"},
			{"-i", "cat"},
			{"-t", "sh -c 'tty; test -t 1'"},
			{"--userns host", "cat /proc/self/uid_map"},
			{"--security-opt seccomp=unconfined --security-opt no-new-privileges=false", "grep -e Seccomp: -e NoNewPrivs /proc/self/status"},
			{"--network none", "ip -o link"},
			{"--network host", "sh -c 'ip -o link | wc -l'"},
			{"--network bridge", "ip -4 -o addr"},
			{"--cpu-shares 256", "true"},
			{"--cpus 0.5", "true"},
			{"--memory 300", "true"},
			{"--memory 200m", "true"},
			{"--pids-limit 50", "true"},
			{"--rm", "sh -c 'exit 3'"},
			{"-d", "sleep 1000"},
		} {
			if testing.Short() && i%6 != 0 {
				continue // each of them takes long on an emulated machine
			}
			args := strings.TrimSpace(test.flags + " " + image + " " + test.command)
			line := ok(t, h.Sh(t, "shocker run -n "+args))
			composed := leave(t, h, "echo input | shocker run "+args)
			pasted := leave(t, h, "echo input | "+group(line))
			if composed.result.Code != pasted.result.Code || composed.result.Stdout != pasted.result.Stdout {
				t.Errorf("run %s:\ncomposed %+v\npasted   %+v", args, composed.result, pasted.result)
			}
			for _, part := range []struct{ name, a, b string }{
				{"record", composed.record, pasted.record}, {"undo", composed.undo, pasted.undo}, {"kernel", composed.kernel, pasted.kernel},
			} {
				if d := differ(part.a, part.b); d != "" {
					t.Errorf("run %s: %s of composed (-) and pasted (+):\n%s", args, part.name, d)
				}
			}
		}
	})
}

// differ lists the lines that only one of the texts has.
func differ(a, b string) string {
	return testkit.Diff(testkit.State{"": strings.Split(a, "\n")}, testkit.State{"": strings.Split(b, "\n")})
}

// group makes a line one command for the pipe before it.
func group(line string) string { return "{ " + strings.TrimSpace(line) + "; }" }

// TestDryRunIsPasteable: what a flag or an argument holds comes through the
// shell as it is.
func TestDryRunIsPasteable(t *testing.T) {
	if testing.Short() {
		t.Skip("it asks nothing of the kernel")
	}
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		for _, arg := range []string{"a b", `it's`, `$HOME`, "`id`", `"`, `\`, "*", "", "-x", "a\tb", "ü", "#", "~", "a\nb"} {
			r := h.Shocker(t, "run", "-n", "-e", "A="+arg, image, "printf", "%s|", arg, "end")
			got := h.Sh(t, ok(t, r))
			if got.Code != 0 || got.Stdout != arg+"|end|" {
				t.Errorf("%q came out as %+v", arg, got)
			}
			id := ids(t, h)[0]
			env := fmt.Sprint(field(t, record(t, h, id), "process", "env"))
			if !strings.Contains(env, "A="+arg) {
				t.Errorf("-e A=%q: the environment is %s", arg, env)
			}
			h.Must(t, "rm", id)
		}
	})
}

// TestPipelineStages: each stage's check and down may be said twice, and down leaves
// what was there before its up.
func TestPipelineStages(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		start := warmUp(t, h, image)
		ok(t, h.Sh(t, "shocker-spec "+image+" true >r0"))
		stages := []string{"shocker-subvol", "shocker-net", "shocker-cg"}
		var before []testkit.State
		for i, s := range stages {
			before = append(before, h.Snapshot(t))
			ok(t, h.Sh(t, fmt.Sprintf("%s up <r%d >r%d; for i in 1 2; do %s check <r%d | cmp - r%d; done", s, i, i+1, s, i+1, i+1)))
		}
		for i, s := range slices.Backward(stages) {
			ok(t, h.Sh(t, fmt.Sprintf("for i in 1 2; do %s down <r%d | cmp - r%d; done", s, i+1, i+1)))
			h.Settle(t, before[i], "files")
			if r := h.Sh(t, fmt.Sprintf("%s check <r%d", s, i+1)); r.Code != 1 || r.Stdout != "" || strings.Count(r.Stderr, "\n") != 1 {
				t.Errorf("%s check after down: %+v; want status 1, one line and no record", s, r)
			}
		}
		ok(t, h.Sh(t, "shocker rm $(shocker ps -q)"))
		h.Settle(t, start, "links", "nft", "addresses", "mounts", "files")
	})
}

// TestPipelineEdited: a record changed with jq is run as changed, printed over
// many lines or not, and what no stage knows comes through.
func TestPipelineEdited(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		for _, jq := range []string{"jq -c", "jq"} {
			got := ok(t, h.Sh(t, "shocker-spec "+image+` env | `+jq+` '.process.env += ["EDITED=yes"] | .unknown = {"x": 9007199254740991} | .linux.resources.memory.limit = 123456789' |
				shocker-subvol up | shocker-net up | shocker-cg up | tee last | shocker-run --record -`))
			if !strings.Contains(got, "EDITED=yes\n") {
				t.Errorf("with %s the program's environment is %q", jq, got)
			}
			last, err := os.ReadFile("last")
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(last), `"unknown":{"x":9007199254740991}`) {
				t.Errorf("with %s what no stage knows came out as %s", jq, last)
			}
			id := ids(t, h)[0]
			limit := ok(t, h.Sh(t, "cat /sys/fs/cgroup/memory/"+id+"/memory.limit_in_bytes /sys/fs/cgroup/"+id+"/memory.max 2>/dev/null || true"))
			if limit != "123453440\n" { // whole pages
				t.Errorf("with %s the limit of the record became %q", jq, limit)
			}
			h.Must(t, "rm", id)
		}
	})
}

// TestPipelineOfTwenty: each starts a container, and a bad one stops no other.
func TestPipelineOfTwenty(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		before := h.Start()
		r := h.Sh(t, `{
			for i in $(seq 10); do shocker-spec `+image+` sh -c "echo $i; exit 0"; done
			echo '{"ociVersion":"1.0.2","annotations":{"sh.shocker.id":"ps_1"'
			for i in $(seq 11 20); do shocker-spec `+image+` sh -c "echo $i; test $i -lt 15 || exit $i"; done
		} | shocker-subvol up | shocker-net up | shocker-cg up | shocker-run --record -`)
		if r.Code != 15 {
			t.Errorf("status %d; want that of the first that failed, 15", r.Code)
		}
		if n := strings.Count(r.Stderr, "\n"); n != 1 || !strings.Contains(r.Stderr, "shocker-subvol: record at line 11: not a valid record") {
			t.Errorf("stderr is %q; want one line about record 11", r.Stderr)
		}
		lines := strings.Fields(r.Stdout)
		slices.Sort(lines)
		if len(slices.Compact(lines)) != 20 {
			t.Errorf("the programs wrote %q", r.Stdout)
		}
		if n := len(ids(t, h)); n != 20 {
			t.Errorf("there are %d containers; want 20", n)
		}
		removeAll(t, h, before, "files")
	})
}

// TestPipelineOfBadRecords: each is one clear line, the right status, and nothing left.
func TestPipelineOfBadRecords(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		before := warmUp(t, h, image)
		for _, test := range []struct{ what, in, want string }{
			{"empty", "", "no record"},
			{"cut", `{"ociVersion":"1.0.2","annotations":{"sh.shocker.id":"ps_7"`, "not a valid record"},
			{"not JSON", "hello", "not a valid record"},
			{"no id", `{"ociVersion":"1.0.2"}`, "no annotation sh.shocker.id"},
			{"an id that climbs", `{"annotations":{"sh.shocker.id":"../../etc"}}`, "not a valid container id"},
			{"two ids", `{"annotations":{"sh.shocker.id":"a","sh.shocker.id":"b"}}`, "appears twice"},
		} {
			for _, s := range []string{"shocker-subvol up", "shocker-net up", "shocker-cg up", "shocker-net down", "shocker-cg check", "shocker-run --record -"} {
				r := h.Sh(t, "printf %s '"+test.in+"' | "+s)
				if r.Code == 0 || r.Stdout != "" || strings.Count(r.Stderr, "\n") != 1 || !strings.Contains(r.Stderr, test.want) {
					t.Errorf("%s of a record that is %s: %+v; want %q", s, test.what, r, test.want)
				}
			}
		}
		h.Settle(t, before)
	})
}

// TestPipelineBroken: a stage whose record nobody takes undoes what it did.
func TestPipelineBroken(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		warmUp(t, h, image)
		ok(t, h.Sh(t, "shocker-spec "+image+" true >r0; shocker-subvol up <r0 >r1; shocker-net up <r1 >r2"))
		for i, s := range []string{"shocker-net", "shocker-cg"} {
			if s == "shocker-net" {
				ok(t, h.Sh(t, "shocker-net down <r2 >/dev/null"))
			}
			before := h.Snapshot(t)
			// The reading end is closed before the stage starts.
			r := h.Sh(t, fmt.Sprintf("mkfifo f%d; { sleep 0 <f%d & }; exec 4>f%d; wait; %s up <r1 >&4", i, i, i, s))
			if r.Code != 1 || !strings.Contains(r.Stderr, "broken pipe") {
				t.Errorf("%s: %+v; want it to see the broken pipe", s, r)
			}
			h.Settle(t, before, "files", "links", "addresses")
		}
	})
}
