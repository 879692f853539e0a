package run

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/applet"
	"shocker.sh/lib/cgroup/group"
	"shocker.sh/lib/record"
	"shocker.sh/lib/stage"
	"shocker.sh/lib/store"
	"shocker.sh/lib/testkit"
	"shocker.sh/lib/undo"
	"shocker.sh/shocker-run/internal/container"
)

// The test's own binary is shocker-run as well: -d executes it.
func TestMain(m *testing.M) {
	if len(os.Args) > 0 && filepath.Base(os.Args[0]) == Name {
		applet.Main(Applet)
	}
	os.Exit(m.Run())
}

// box is a test host with a store and a root file system.
type box struct {
	*testing.T
	kit  *testkit.Host
	host stage.Host
	st   *store.Store
	root string
}

func inBox(t *testing.T, f func(b *box)) {
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		b := &box{T: t, kit: h, host: stage.FromEnv(), root: h.Busybox(t)}
		var err error
		if b.st, err = store.Open(b.host.Store, func(string) {}); err != nil {
			t.Fatal(err)
		}
		f(b)
	})
}

// record makes a container with a record as the stages before leave it: with a
// cgroup, and without a network.
func (b *box) record(id string, change func(*specs.Spec), args ...string) *record.Record {
	b.Helper()
	caps := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SETGID", "CAP_SETUID"}
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1900000000, Size: 65536}}
	spec := &specs.Spec{
		Version:  "1.0.2",
		Hostname: id,
		Root:     &specs.Root{Path: b.root},
		Process: &specs.Process{
			Args: args, Cwd: "/", Env: []string{"PATH=/bin:/usr/bin", "HOME=/root"}, NoNewPrivileges: true,
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"ro"}},
		},
		Annotations: map[string]string{record.AnnotationID: id},
		Linux: &specs.Linux{
			UIDMappings: ids, GIDMappings: ids, CgroupsPath: "/" + id,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.UserNamespace},
				{Type: specs.PIDNamespace},
				{Type: specs.NetworkNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.MountNamespace},
			},
		},
	}
	if change != nil {
		change(spec)
	}
	r, err := record.New(spec)
	if err != nil {
		b.Fatal(err)
	}
	dir, err := b.host.MakeRun(id)
	if err != nil {
		b.Fatal(err)
	}
	log := undo.Open(dir)
	if err := b.st.PutContainer(r, log.Push); err != nil {
		b.Fatal(err)
	}
	b.cgroup(id, log)
	return r
}

// cgroup makes the container's groups in every tree, as shocker-cg does.
func (b *box) cgroup(id string, log *undo.Log) {
	b.Helper()
	e := &undo.Entry{Stage: "shocker-cg", Class: undo.Rm, Op: undo.OpCgroup}
	trees := []string{b.host.CgroupRoot}
	if !b.host.CgroupV2() {
		trees = nil
		for _, name := range []string{"memory", "pids", "freezer"} {
			trees = append(trees, filepath.Join(b.host.CgroupRoot, name))
		}
	}
	for _, tree := range trees {
		dir := filepath.Join(tree, id)
		if err := os.Mkdir(dir, 0o755|os.ModeSticky); err != nil {
			b.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err != nil {
			b.Fatal(err)
		}
		e.Dirs = append(e.Dirs, undo.Dir{Path: dir, Ino: st.Ino})
	}
	if err := log.Push(e); err != nil {
		b.Fatal(err)
	}
}

// outcome of a run in the foreground.
type outcome struct {
	status      int
	out, errOut string
	err         error
}

func (b *box) run(r *record.Record, o Options) outcome {
	b.Helper()
	var out, errOut bytes.Buffer
	if o.Out == nil {
		o.Out = &out
	}
	o.Err = &errOut
	status, err := Run(context.Background(), b.host, r, o)
	return outcome{status, out.String(), errOut.String(), err}
}

// gone checks that nothing of a container is left.
func (b *box) gone(id string) {
	b.Helper()
	left, err := filepath.Glob(b.host.RunDir(id))
	more, err2 := filepath.Glob(b.st.Container(id))
	groups, err3 := filepath.Glob(filepath.Join(b.host.CgroupRoot, "*", id))
	if left = append(append(left, more...), groups...); len(left) > 0 || errors.Join(err, err2, err3) != nil {
		b.Errorf("left behind: %q %v", left, errors.Join(err, err2, err3))
	}
}

func TestRun(t *testing.T) {
	inBox(t, func(b *box) {
		r := b.record("ps_1", nil, "sh", "-c", "printf 'one\\ntwo'; echo problem >&2; cat /proc/1/cgroup >&2; exit 3")
		got := b.run(r, Options{})
		if got.status != 3 || got.err != nil || got.out != "one\ntwo" || !strings.HasPrefix(got.errOut, "problem\n") {
			t.Errorf("run: %+v", got)
		}
		if !strings.Contains(got.errOut, ":/ps_1\n") {
			t.Errorf("the program is not in its cgroup: %s", got.errOut)
		}
		var out, errOut bytes.Buffer
		if err := Logs(context.Background(), b.host, "ps_1", &out, &errOut, LogOptions{Tail: -1}); err != nil {
			t.Error(err)
		}
		if out.String() != got.out || errOut.String() != got.errOut {
			t.Errorf("logs %q, %q; want the program's bytes %q, %q", out.String(), errOut.String(), got.out, got.errOut)
		}
		s, err := b.st.State("ps_1")
		if err != nil || s.ExitStatus == nil || *s.ExitStatus != 3 || s.Started.IsZero() || s.Finished.Before(s.Started) {
			t.Errorf("state %+v, %v; want the exit status 3 and its times", s, err)
		}
		if status, err := Wait(context.Background(), b.host, "ps_1"); status != 3 || err != nil {
			t.Errorf("Wait = %d, %v; want 3", status, err)
		}
		if err := Signal(b.host, "ps_1", unix.SIGTERM); !errors.Is(err, ErrNotRunning) || err.Error() != "Container 'ps_1' exists but is not running" {
			t.Errorf("Signal to an exited one: %v", err)
		}
	})
}

func TestStdin(t *testing.T) {
	inBox(t, func(b *box) {
		in, err := os.CreateTemp("", "")
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Repeat("0123456789abcde\n", 20_000)
		if _, err := in.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if _, err := in.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if got := b.run(b.record("ps_1", nil, "cat"), Options{In: in, Remove: true}); got.out != text || got.status != 0 {
			t.Errorf("cat of its stdin: status %d, %v, %d bytes; want %d", got.status, got.err, len(got.out), len(text))
		}
		if got := b.run(b.record("ps_2", nil, "cat"), Options{Remove: true}); got.out != "" || got.status != 0 {
			t.Errorf("cat without stdin: %+v", got)
		}
		b.gone("ps_1")
	})
}

// When nobody reads our stdout any more, the program is told and ends.
func TestReaderGone(t *testing.T) {
	inBox(t, func(b *box) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			buf := make([]byte, 10)
			io.ReadFull(r, buf)
			r.Close()
		}()
		// A child of init gets the signal itself, init only EPIPE.
		got := b.run(b.record("ps_1", nil, "sh", "-c", "yes; echo $? >&2"), Options{Out: w})
		if !strings.HasSuffix(got.errOut, "141\n") && !strings.Contains(got.errOut, "Broken pipe") {
			t.Errorf("yes | head: %+v; want an end by SIGPIPE", got)
		}
	})
}

func TestNotStarted(t *testing.T) {
	inBox(t, func(b *box) {
		for id, test := range map[string]struct {
			change func(*specs.Spec)
			status int
			want   error
		}{
			"ps_1": {func(s *specs.Spec) { s.Process.Args = []string{"nosuch"} }, 127, container.ErrNotFound},
			"ps_2": {func(s *specs.Spec) { s.Process.Args = []string{"/etc"} }, 126, container.ErrNotExecutable},
			"ps_3": {func(s *specs.Spec) { s.Root.Path = "/no/such/root" }, 125, os.ErrNotExist},
			"ps_4": {func(s *specs.Spec) { s.Linux.CgroupsPath = "/nosuch" }, 125, group.ErrGone},
			"ps_5": {func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_LUCK"}} }, 125, container.ErrInvalid},
			"ps_6": {func(s *specs.Spec) {
				s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "nosuchfs", Source: "x"})
			}, 125, unix.ENODEV},
			"ps_7": {func(s *specs.Spec) { s.Process = nil }, 125, container.ErrInvalid},
		} {
			got := b.run(b.record(id, test.change, "true"), Options{Remove: true})
			if got.status != test.status || !errors.Is(got.err, test.want) {
				t.Errorf("%s: status %d, %v; want %d, %v", id, got.status, got.err, test.status, test.want)
			}
			b.gone(id)
		}
		// Without --rm, a program that does not exist leaves an exited container.
		if got := b.run(b.record("ps_8", nil, "nosuch"), Options{}); got.status != 127 {
			t.Errorf("status %d; want 127", got.status)
		}
		if status, err := Wait(context.Background(), b.host, "ps_8"); status != 127 || err != nil {
			t.Errorf("Wait = %d, %v; want 127", status, err)
		}
	})
}

// shockerRun executes shocker-run itself.
func (b *box) shockerRun(in string, args ...string) outcome {
	b.Helper()
	var out, errOut bytes.Buffer
	cmd := &osexec.Cmd{Path: "/proc/self/exe", Args: append([]string{Name}, args...), Stdin: strings.NewReader(in), Stdout: &out, Stderr: &errOut}
	err := cmd.Run()
	if cmd.ProcessState == nil {
		b.Fatal(err)
	}
	return outcome{status: cmd.ProcessState.ExitCode(), out: out.String(), errOut: errOut.String()}
}

func TestManyRecords(t *testing.T) {
	inBox(t, func(b *box) {
		var in strings.Builder
		const n = 20
		for i := range n {
			if i == 7 {
				in.WriteString("{\"annotations\":{}}\n")
			}
			script := fmt.Sprintf("i=0; while test $i -lt 50; do printf 'record '; echo %d line $i; i=$((i+1)); done; printf end; exit %d", i, max(0, i-15))
			in.Write(b.record(fmt.Sprintf("ps_%d", i), nil, "sh", "-c", script).Line())
		}
		got := b.shockerRun(in.String(), "--record", "-", "--rm")
		if got.status != 125 || !strings.Contains(got.errOut, "no annotation sh.shocker.id") {
			t.Errorf("status %d, %q; want that of the bad record, 125, and why", got.status, got.errOut)
		}
		counts := make(map[string]int)
		for line := range strings.Lines(got.out) {
			counts[strings.SplitAfter(line, " line ")[0]]++
		}
		for i := range n {
			if c := counts[fmt.Sprintf("record %d line ", i)]; c != 50 {
				t.Errorf("record %d: %d whole lines; want 50", i, c)
			}
			b.gone(fmt.Sprintf("ps_%d", i))
		}
		if counts["end\n"] != n {
			t.Errorf("%d last lines; want %d, each ended", counts["end\n"], n)
		}
		if got := b.shockerRun("", "--record", "-"); got.status != 125 || !strings.Contains(got.errOut, "no record") {
			t.Errorf("without a record: %+v", got)
		}
		tty := func(s *specs.Spec) { s.Process.Terminal = true }
		two := string(b.record("ps_a", tty, "true").Line()) + string(b.record("ps_b", nil, "true").Line())
		if got := b.shockerRun(two, "--record", "-"); got.status != 125 || !strings.Contains(got.errOut, "terminal") {
			t.Errorf("a terminal for one of two: %+v", got)
		}
		b.gone("ps_a")
	})
}

func TestDetach(t *testing.T) {
	inBox(t, func(b *box) {
		ctx := context.Background()
		line := b.record("ps_1", nil, "sh", "-c", "echo begin; trap 'echo bye; exit 5' TERM; sleep 1000 & wait").Line()
		got := b.shockerRun(string(line), "--record", "-", "-d")
		if got.status != 0 || got.out != "ps_1\n" {
			t.Fatalf("-d: %+v; want the id", got)
		}
		if alive, err := Alive(b.host, "ps_1"); !alive || err != nil {
			t.Errorf("Alive = %v, %v", alive, err)
		}
		if live, died, err := undo.Open(b.host.RunDir("ps_1")).Working(); live || died || err != nil {
			t.Errorf("marks of work: %v %v %v; want none", live, died, err)
		}
		var followed bytes.Buffer
		logged := make(chan error, 1)
		go func() { logged <- Logs(ctx, b.host, "ps_1", &followed, io.Discard, LogOptions{Follow: true, Tail: -1}) }()

		// Until it has said so, the trap may not be set.
		testkit.Eventually(t, 10*time.Second, func() error {
			var out bytes.Buffer
			if err := Logs(ctx, b.host, "ps_1", &out, io.Discard, LogOptions{Tail: -1}); err != nil || out.Len() == 0 {
				return fmt.Errorf("no output yet: %v", err)
			}
			return nil
		})
		var out, errOut bytes.Buffer
		status, err := Exec(ctx, b.host, "ps_1", ExecOptions{Args: []string{"sh", "-c", "echo $$ $X; cat /proc/1/comm; cat /proc/self/cgroup >&2; hostname; exit 9"}, Env: []string{"X=y"}, Out: &out, Err: &errOut})
		if status != 9 || err != nil || !strings.HasSuffix(out.String(), " y\nsh\nps_1\n") || !strings.Contains(errOut.String(), ":/ps_1\n") {
			t.Errorf("exec: %d, %v, %q, %q", status, err, out.String(), errOut.String())
		}
		if status, err := Exec(ctx, b.host, "ps_1", ExecOptions{Args: []string{"nosuch"}}); status != 127 || !errors.Is(err, container.ErrNotFound) {
			t.Errorf("exec of nothing: %d, %v", status, err)
		}
		if err := Signal(b.host, "ps_1", unix.SIGTERM); err != nil {
			t.Error(err)
		}
		if status, err := Wait(ctx, b.host, "ps_1"); status != 5 || err != nil {
			t.Errorf("Wait = %d, %v; want 5", status, err)
		}
		if err := <-logged; err != nil || followed.String() != "begin\nbye\n" {
			t.Errorf("followed %q, %v", followed.String(), err)
		}
		if _, err := Exec(ctx, b.host, "ps_1", ExecOptions{Args: []string{"true"}}); !errors.Is(err, ErrNotRunning) {
			t.Errorf("exec in a stopped one: %v", err)
		}

		// One that does not hear SIGTERM is killed; with --rm nothing is left.
		line = b.record("ps_2", nil, "sleep", "1000").Line()
		if got := b.shockerRun(string(line), "--record", "-", "-d", "--rm"); got.status != 0 {
			t.Fatalf("-d --rm: %+v", got)
		}
		if err := Stop(ctx, b.host, "ps_2", 100*time.Millisecond); err != nil {
			t.Error(err)
		}
		testkit.Eventually(t, 10*time.Second, func() error {
			if _, err := os.Stat(b.host.RunDir("ps_2")); err == nil {
				return errors.New("the run dir is still there")
			}
			return nil
		})
		b.gone("ps_2")

		line = b.record("ps_3", nil, "nosuch").Line()
		if got := b.shockerRun(string(line), "--record", "-", "-d"); got.status != 127 || !strings.Contains(got.errOut, "executable file not found") {
			t.Errorf("-d of a program that is not there: %+v", got)
		}
	})
}

func TestExecUser(t *testing.T) {
	inBox(t, func(b *box) {
		ctx := context.Background()
		if err := os.WriteFile(filepath.Join(b.root, "etc/passwd"), []byte("root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		line := b.record("ps_1", nil, "sleep", "1000").Line()
		if got := b.shockerRun(string(line), "--record", "-", "-d"); got.status != 0 {
			t.Fatalf("-d: %+v", got)
		}
		defer Stop(ctx, b.host, "ps_1", 0)
		for _, test := range []struct{ user, want string }{
			{"", "0 0 /root 00000000000000e3\n"}, {"web", "33 34 /srv 0000000000000000\n"}, {"7:8", "7 8 / 0000000000000000\n"},
		} {
			var out bytes.Buffer
			script := "echo $(id -u) $(id -g) $HOME $(grep CapEff /proc/self/status | cut -f2)"
			status, err := Exec(ctx, b.host, "ps_1", ExecOptions{Args: []string{"sh", "-c", script}, User: test.user, Out: &out, Err: os.Stderr})
			if status != 0 || err != nil || out.String() != test.want {
				t.Errorf("as %q: %d, %v, %q; want %q", test.user, status, err, out.String(), test.want)
			}
		}
		for _, user := range []string{"nobody", "4294967296", "4294967295"} {
			if status, err := Exec(ctx, b.host, "ps_1", ExecOptions{Args: []string{"true"}, User: user}); err == nil || status != 125 {
				t.Errorf("as %q: %d, %v; want an error", user, status, err)
			}
		}
	})
}

// A supervisor that is killed leaves a container of which the kernel still
// tells that it runs.
func TestSupervisorKilled(t *testing.T) {
	inBox(t, func(b *box) {
		ctx := context.Background()
		line := b.record("ps_1", nil, "sleep", "1000").Line()
		cmd := &osexec.Cmd{Path: "/proc/self/exe", Args: []string{Name, "--record", "-", "--status-fd", "3"}, Stdin: bytes.NewReader(line)}
		events, tell, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.ExtraFiles = []*os.File{tell}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		tell.Close()
		var e Event
		if err := json.NewDecoder(events).Decode(&e); err != nil || e.Status != "running" || e.ID != "ps_1" || e.Pid == 0 {
			t.Fatalf("first event %+v, %v", e, err)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if alive, err := Alive(b.host, "ps_1"); !alive || err != nil {
			t.Errorf("Alive = %v, %v; want it to be told", alive, err)
		}
		if err := Signal(b.host, "ps_1", unix.SIGKILL); err != nil {
			t.Error(err)
		}
		if _, err := Wait(ctx, b.host, "ps_1"); !errors.Is(err, ErrLost) {
			t.Errorf("Wait: %v; want %v", err, ErrLost)
		}
	})
}

// A container that has exited is run again in fresh namespaces: what it wrote
// is still there, and its log goes on.
func TestRestart(t *testing.T) {
	inBox(t, func(b *box) {
		r := b.record("ps_1", nil, "sh", "-c", "ls /tmp; touch /tmp/mark; cat /proc/sys/kernel/random/boot_id > /dev/null; exit 4")
		if err := os.Chmod(filepath.Join(b.root, "tmp"), 0o777); err != nil {
			t.Fatal(err)
		}
		for i, want := range []string{"", "mark\n"} {
			if got := b.run(r, Options{}); got.status != 4 || got.err != nil || got.out != want {
				t.Errorf("run %d: %+v; want %q", i, got, want)
			}
		}
		var out bytes.Buffer
		if err := Logs(context.Background(), b.host, "ps_1", &out, &out, LogOptions{Tail: -1}); err != nil || out.String() != "mark\n" {
			t.Errorf("logs %q, %v", out.String(), err)
		}
	})
}

// kill -9 of shocker-run before the program runs leaves no process behind.
func TestKilledBeforeStart(t *testing.T) {
	inBox(t, func(b *box) {
		mark := filepath.Join(t.TempDir(), "mark")
		line := b.record("ps_1", func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo > " + mark + "; exec sleep 1000"}}}}
		}, "true").Line()
		cmd := &osexec.Cmd{Path: "/proc/self/exe", Args: []string{Name, "--record", "-"}, Stdin: bytes.NewReader(line)}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		testkit.Eventually(t, 10*time.Second, func() error {
			_, err := os.Stat(mark)
			return err
		})
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		testkit.Eventually(t, 10*time.Second, func() error {
			procs, err := filepath.Glob(filepath.Join(b.host.CgroupRoot, "*", "ps_1", "cgroup.procs"))
			if b.host.CgroupV2() {
				procs = []string{filepath.Join(b.host.CgroupRoot, "ps_1", "cgroup.procs")}
			}
			if err != nil || len(procs) == 0 {
				return fmt.Errorf("no cgroup: %v", err)
			}
			data, err := os.ReadFile(procs[0])
			if err != nil || len(data) > 0 {
				return fmt.Errorf("still there: %s, %v", data, err)
			}
			return nil
		})
	})
}

func TestCgroupMount(t *testing.T) {
	inBox(t, func(b *box) {
		r := b.record("ps_1", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "ro"}})
		}, "sh", "-c", "cat /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/pids/cgroup.procs 2>/dev/null | head -n 1; touch /sys/fs/cgroup/x 2>&1 | grep -o Read-only")
		if got := b.run(r, Options{}); got.out != "1\nRead-only\n" {
			t.Errorf("cgroup mount: %+v", got)
		}
	})
}

func TestOOM(t *testing.T) {
	inBox(t, func(b *box) {
		limit := filepath.Join(b.host.CgroupRoot, "memory/ps_1/memory.limit_in_bytes")
		if b.host.CgroupV2() {
			limit = filepath.Join(b.host.CgroupRoot, "ps_1/memory.max")
		}
		r := b.record("ps_1", nil, "sh", "-c", "x=x; while :; do x=$x$x; done")
		if b.host.CgroupV2() {
			if err := os.WriteFile(filepath.Join(b.host.CgroupRoot, "cgroup.subtree_control"), []byte("+memory"), 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(limit, []byte("8000000"), 0); err != nil {
			t.Fatal(err)
		}
		if got := b.run(r, Options{}); got.status != 137 {
			t.Errorf("status %d, %v; want 137", got.status, got.err)
		}
		if s, err := b.st.State("ps_1"); err != nil || !s.OOMKilled {
			t.Errorf("state %+v, %v; want it killed for memory", s, err)
		}
	})
}
