package peers

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/testkit"
)

// row is an ordinary behaviour of containers: a script for sh, and a regular
// expression that all of its output has to match, which is stdout and stderr
// together, without carriage returns, "^@" and space around it.
//
// The script finds in PATH the commands e (the engine), run and create (with
// the runtime under test), remove (without mercy), eventually CMD (until it succeeds) and tty ROWS COLS
// CMD (on a terminal of that size); in N a name that the containers it names
// begin with; in D a directory of its own; in RT the runtime. Image bb is a
// busybox.
type row struct {
	name   string
	script string
	want   string
	core   bool // part of the fast core
}

// engine starts containers by an OCI runtime.
type engine struct {
	name  string
	needs []string
	// start begins services, and makes image bb of the directory root.
	start func(s *setting, root string)
	first string // script of a first container, which says "started"
	// commands are scripts for bash; clean ends and removes all containers that
	// begin with $N.
	e, run, create, remove, clean string
}

// setting is an engine on a test host.
type setting struct {
	*testing.T
	h      *testkit.Host
	engine engine
	dir    string // its own: commands, data, logs
	count  int
	mu     sync.Mutex
}

// only leaves out the rows with other names; a host's test takes it along.
var only = flag.String("rows", "", "compare only rows whose names match this regular expression")

// rowLimit ends a script that hangs.
const rowLimit = 2 * time.Minute

// through compares the two runtimes by these rows on the engine. When it has
// removed every container, nothing may be left.
func through(t *testing.T, en engine, rows []row) {
	if testing.Short() {
		t.Skip("starts services")
	}
	testkit.Requires(t, append(en.needs, reference, "busybox")...)
	on(t, func(t *testing.T, h *testkit.Host) {
		s := &setting{T: t, h: h, engine: en, dir: filepath.Join(h.Dir, en.name)}
		if err := os.MkdirAll(filepath.Join(s.dir, "bin"), 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{
			"e": en.e, "run": en.run, "create": en.create, "remove": en.remove, "clean": en.clean,
			"eventually": `i=0; until "$@"; do i=$((i + 1)); [ $i -lt $TRIES ] || exit 1; sleep 0.1; done`,
			"tty":        `size="rows $1 cols $2"; shift 2; exec script -qec "stty $size; exec ${*@Q}" /dev/null`,
		} {
			s.command(name, text)
		}
		t.Setenv("PATH", filepath.Join(s.dir, "bin")+":"+os.Getenv("PATH"))
		en.start(s, s.root())
		s.warmUp()
		before := h.Snapshot(t)
		chosen := regexp.MustCompile(*only)
		t.Run("row", func(t *testing.T) {
			for _, r := range rows {
				if (all || r.core) && chosen.MatchString(r.name) {
					t.Run(r.name, func(t *testing.T) {
						t.Parallel()
						s.compare(t, r)
					})
				}
			}
		})
		t.Run("nothing is left", func(t *testing.T) {
			left, verdict := leftovers(t, h, before), "same"
			if left != "" {
				verdict = "WORSE"
				t.Error(left)
			}
			tell(t, "engine", en.name, "nothing is left", cell(left), cell(left), verdict)
		})
	})
}

func (s *setting) command(name, text string) {
	s.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, "bin", name), []byte("#!/bin/bash\n"+text+"\n"), 0o755); err != nil {
		s.Fatal(err)
	}
}

// root makes the root file system of image bb: a busybox with a user, a
// command that reads limits, and a directory for volumes.
func (s *setting) root() string {
	s.Helper()
	root := s.h.Busybox(s)
	for name, text := range map[string]string{
		"etc/passwd":     "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
		"etc/group":      "root:x:0:\napp:x:1000:\nextra:x:555:\nnogroup:x:65534:\n",
		"bin/limit":      "#!/bin/sh\ncat /sys/fs/cgroup/$1 2>/dev/null || cat /sys/fs/cgroup/$2\n",
		"data/file":      "of the image\n",
		"home/app/empty": "",
	} {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			s.Fatal(err)
		}
	}
	err := errors.Join(os.Chmod(filepath.Join(root, "bin/limit"), 0o755), os.Chown(filepath.Join(root, "home/app"), 1000, 1000))
	if err != nil {
		s.Fatal(err)
	}
	return root
}

// serve starts a service, which ends with the host, and waits until ready
// succeeds.
func (s *setting) serve(ready string, name string, args ...string) {
	s.Helper()
	logName := filepath.Join(s.dir, filepath.Base(name)+".log")
	log, err := os.Create(logName)
	if err != nil {
		s.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	testkit.Eventually(s, 30*time.Second, func() error {
		if out, err := exec.Command("sh", "-c", ready).CombinedOutput(); err != nil {
			text, _ := os.ReadFile(logName)
			return fmt.Errorf("%s: %w: %s\n%s", name, err, out, text)
		}
		return nil
	})
}

// must runs a script that has to succeed.
func (s *setting) must(script string, args ...string) {
	s.Helper()
	if r := s.h.Command(s, "sh", append([]string{"-euc", script, "sh"}, args...)...); r.Code != 0 {
		s.Fatalf("%s: status %d\n%s%s", script, r.Code, r.Stdout, r.Stderr)
	}
}

// warmUp runs a container with each runtime, so that what belongs to the
// engine is there.
func (s *setting) warmUp() {
	s.Helper()
	for _, runtime := range []string{reference, candidate} {
		if out := s.script(s.T, row{name: "warm-up", script: s.engine.first}, runtime); out != "started" {
			s.Logf("the first container of %s through %s says: %s", runtime, s.engine.name, out)
		}
	}
}

// script runs that of a row with a runtime, and removes its containers.
func (s *setting) script(t *testing.T, r row, runtime string) string {
	t.Helper()
	s.mu.Lock()
	s.count++
	name := fmt.Sprintf("n%03d", s.count)
	s.mu.Unlock()
	dir := filepath.Join(s.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "N="+name, "D="+dir, "RT="+runtime, "RTPATH="+path(t, runtime),
		"DIR="+s.dir, fmt.Sprintf("TRIES=%d", testkit.Patience(200)))
	out := shell(r.script, dir, env)
	if strings.Contains(r.script, "$N") {
		if left := shell("clean", dir, env); left != "" {
			out += "\nclean-up: " + left
		}
	}
	return out
}

// shell runs a script to its end and returns what it printed. After a time
// limit its processes are killed.
func shell(script, dir string, env []string) string {
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience(rowLimit))
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "sh", "-c", script)
	cmd.Dir, cmd.Env = dir, env
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = testkit.Patience(time.Second)
	err := cmd.Run()
	// script(1) shows the end of its input so.
	text := strings.TrimSpace(strings.NewReplacer("\r", "", "^@", "").Replace(out.String()))
	if ctx.Err() != nil {
		text += "\nstill ran after " + testkit.Patience(rowLimit).String()
	} else if errors.Is(err, exec.ErrWaitDelay) {
		text += "\noutput kept open"
	}
	return strings.TrimSpace(text)
}

var hex = regexp.MustCompile(`\b[0-9a-f]{12}([0-9a-f]{52})?\b`)

// compare runs one row with both runtimes at once.
func (s *setting) compare(t *testing.T, r row) {
	t.Helper()
	right := regexp.MustCompile(`(?s)\A(?:` + r.want + `)\z`)
	var ref, cand string
	var wg sync.WaitGroup
	wg.Go(func() { ref = s.script(t, r, reference) })
	wg.Go(func() { cand = s.script(t, r, candidate) })
	wg.Wait()
	verdict := "differs"
	switch {
	case right.MatchString(ref) && !right.MatchString(cand):
		verdict = "WORSE"
		t.Errorf("%s\nhas to print: %s\n%s: %s\n%s: %s", r.script, r.want, reference, ref, candidate, cand)
	case !right.MatchString(ref) && right.MatchString(cand):
		verdict = "better"
	case !right.MatchString(ref):
		verdict = "both fail"
		t.Logf("%s\nhas to print: %s\n%s: %s\n%s: %s", r.script, r.want, reference, ref, candidate, cand)
	case normal(ref, reference) == normal(cand, candidate):
		verdict = "same"
	}
	tell(t, "engine", s.engine.name, r.name, cell(ref), cell(cand), verdict)
}

// normal takes out of an output what differs from container to container.
func normal(out, runtime string) string {
	return hex.ReplaceAllString(strings.ReplaceAll(out, runtime, "RUNTIME"), "ID")
}

// cell is an output in a table.
func cell(out string) string {
	out = strings.Join(strings.Fields(out), " ")
	if r := []rune(out); len(r) > 40 {
		out = string(r[:20]) + "…" + string(r[len(r)-19:])
	}
	if out == "" {
		out = "-"
	}
	return out
}
