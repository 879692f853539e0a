package e2e

import (
	"errors"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"shocker.sh/lib/testkit"
)

const scriptDir = "testdata/script"

// TestScripts runs the scripts of the command line, each on a host of its own
// with an image of a busybox, $IMAGE. Beside the commands of testscript they
// have
//
//	status N COMMAND...         succeeds if COMMAND exits with N
//	fails N REGEXP COMMAND...   ... and says one line on stderr, like REGEXP, and nothing on stdout
//	set NAME COMMAND...         puts the output of COMMAND into $NAME
//	snapshot                    remembers what is on the host
//	settled [KIND...]           succeeds once the host is as it was then, except for these kinds
func TestScripts(t *testing.T) {
	files, err := filepath.Glob(scriptDir + "/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".txtar")
		t.Run(name, func(t *testing.T) {
			testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) { script(t, h, name) })
		})
	}
}

// script runs one script.
func script(t *testing.T, h *testkit.Host, name string) {
	t.Helper()
	image := initImage(t, h)
	var before testkit.State
	testscript.RunT(one{t, name}, testscript.Params{
		Dir:                 scriptDir,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("IMAGE", image)
			e.Setenv("SHOCKER_ROOT", h.Store)
			e.Setenv("SHOCKER_RUN", h.RunDir)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status": func(ts *testscript.TestScript, neg bool, args []string) {
				usage(ts, neg, len(args) >= 2, "status N COMMAND...")
				status(ts, args[0], args[1:])
			},
			"fails": func(ts *testscript.TestScript, neg bool, args []string) {
				usage(ts, neg, len(args) >= 3, "fails N REGEXP COMMAND...")
				want, err := regexp.Compile(args[1])
				ts.Check(err)
				status(ts, args[0], args[2:])
				talk := ts.ReadFile("stderr")
				if ts.ReadFile("stdout") != "" || strings.Count(talk, "\n") != 1 || !want.MatchString(talk) {
					ts.Fatalf("want no output and one line on stderr like %q", want)
				}
			},
			"set": func(ts *testscript.TestScript, neg bool, args []string) {
				usage(ts, neg, len(args) >= 2, "set NAME COMMAND...")
				status(ts, "0", args[1:])
				ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
			},
			"snapshot": func(ts *testscript.TestScript, neg bool, args []string) {
				usage(ts, neg, len(args) == 0, "snapshot")
				before = still(t, h)
			},
			"settled": func(ts *testscript.TestScript, neg bool, args []string) {
				usage(ts, neg, before != nil, "settled [KIND...], after snapshot")
				h.Settle(t, before, args...)
			},
		},
	})
}

func usage(ts *testscript.TestScript, neg, ok bool, text string) {
	if neg || !ok {
		ts.Fatalf("usage: %s", text)
	}
}

// status executes a command that has to exit with the status.
func status(ts *testscript.TestScript, want string, command []string) {
	n, err := strconv.Atoi(want)
	ts.Check(err)
	err = ts.Exec(command[0], command[1:]...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if code != n {
		ts.Fatalf("exit status %d; want %d", code, n)
	}
}

// one is the test of one script out of the directory.
type one struct {
	*testing.T
	name string
}

func (o one) Run(name string, f func(testscript.T)) {
	if name == o.name {
		f(o)
	}
}

func (o one) Parallel()     {}
func (o one) Verbose() bool { return testing.Verbose() }
