package spawn

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

var maps = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1879048192, Size: 65536}}

func table(t *testing.T) *Table {
	t.Helper()
	tab, err := NewTable()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tab.Close)
	return tab
}

func limit(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func start(t *testing.T, tab *Table, o Options) *Process {
	t.Helper()
	p, err := tab.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
		p.Close()
	})
	return p
}

// shell adds the execution of a shell script with stdout to a pipe, and
// returns what reads it.
func shell(t *testing.T, tab *Table, script string) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	tab.Call("stdout", unix.SYS_DUP3, w, 1, 0)
	tab.CloseFrom(3)
	tab.Exec("/bin/sh", []string{"sh", "-c", script}, []string{"PATH=/usr/bin:/bin:/usr/sbin:/sbin"})
	return r
}

func output(t *testing.T, r *os.File) string {
	t.Helper()
	b := make([]byte, 64<<10)
	if err := r.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, err := r.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestProgramInNewNamespaces(t *testing.T) {
	tab := table(t)
	tab.Notify("tell")
	tab.Wait("wait")
	tab.Call("become root", unix.SYS_SETRESUID, 0, 0, 0)
	tab.Clone("clone", unix.CLONE_NEWPID|unix.CLONE_NEWNS)
	tab.Call("make mounts private", unix.SYS_MOUNT, 0, "/", 0, unix.MS_REC|unix.MS_PRIVATE, 0)
	tab.Call("mount proc", unix.SYS_MOUNT, "proc", "/proc", "proc", 0, 0)
	r := shell(t, tab, "echo $$ $(id -u) $(cat /proc/1/comm) $(grep Sig[BI] /proc/self/status); exit 7")
	p := start(t, tab, Options{Flags: unix.CLONE_NEWUSER})
	if err := p.Notified(limit(t)); err != nil {
		t.Fatal(err)
	}
	if err := WriteMappings(p.Pid(), maps, maps); err != nil {
		t.Fatal(err)
	}
	if err := p.Release(); err != nil {
		t.Fatal(err)
	}
	if err := p.Started(limit(t)); err != nil {
		t.Fatal(err)
	}
	status, err := p.Wait()
	if err != nil || status.ExitStatus() != 7 {
		t.Errorf("Wait() = %d, %v; want 7", status.ExitStatus(), err)
	}
	got := strings.Join(strings.Fields(output(t, r)), " ")
	if want := "1 0 sh SigBlk: 0000000000000000 SigIgn: 0000000000000000"; got != want {
		t.Errorf("the program saw %q; want %q", got, want)
	}
}

func TestJoinedNamespaces(t *testing.T) {
	files, err := Namespaces(maps, maps, unix.CLONE_NEWUSER, unix.CLONE_NEWNET)
	if err != nil {
		t.Fatal(err)
	}
	tab := table(t)
	for _, f := range files {
		defer f.Close()
		tab.Call("join "+f.Name(), unix.SYS_SETNS, f, 0)
	}
	tab.Clone("clone", unix.CLONE_NEWPID|unix.CLONE_NEWNS)
	tab.Call("become root", unix.SYS_SETRESUID, 0, 0, 0)
	r := shell(t, tab, "ip link set lo up && echo up; cat /proc/self/uid_map")
	p := start(t, tab, Options{})
	if err := p.Started(limit(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(strings.Fields(output(t, r)), " "); got != "up 0 1879048192 65536" {
		t.Errorf("the program saw %q", got)
	}
}

func TestFailingStepIsNamed(t *testing.T) {
	tab := table(t)
	tab.Call("fail and be ignored", unix.SYS_CHDIR, "/nowhere").Ignore(unix.ENOENT)
	tab.Call("enter /nowhere", unix.SYS_CHDIR, "/nowhere")
	tab.Exec("/bin/true", []string{"true"}, nil)
	err := start(t, tab, Options{}).Started(limit(t))
	var step *StepError
	if !errors.As(err, &step) || step.Step != "enter /nowhere" || !errors.Is(err, unix.ENOENT) {
		t.Errorf("Started() = %v; want the step and ENOENT", err)
	}
}

func TestProgramThatCannotBeExecuted(t *testing.T) {
	for path, want := range map[string]error{"/nowhere": unix.ENOENT, "/etc/passwd": unix.EACCES} {
		tab := table(t)
		tab.Exec(path, []string{path}, nil)
		if err := start(t, tab, Options{}).Started(limit(t)); !errors.Is(err, want) {
			t.Errorf("Started() of %s = %v; want %v", path, err, want)
		}
	}
}

func TestDeathBeforeTheProgram(t *testing.T) {
	tab := table(t)
	tab.Notify("tell")
	tab.Wait("wait for ever")
	p := start(t, tab, Options{})
	if err := p.Notified(limit(t)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(p.Pid(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := p.Started(limit(t)); !errors.Is(err, ErrDied) {
		t.Errorf("Started() = %v; want ErrDied", err)
	}
}

func TestWaitEndsWithItsParent(t *testing.T) {
	tab := table(t)
	tab.Wait("wait for a parent that is gone")
	tab.Exec("/bin/true", []string{"true"}, nil)
	other := table(t) // holds a copy of the first's pipes, were they not closed
	other.Wait("wait for ever")
	p := start(t, tab, Options{})
	start(t, other, Options{})
	tab.release.w.Close()
	if err := p.Started(limit(t)); !errors.Is(err, unix.EPIPE) {
		t.Errorf("Started() = %v; want EPIPE", err)
	}
}

func TestContextEndsTheWaiting(t *testing.T) {
	tab := table(t)
	tab.Wait("wait for ever")
	p := start(t, tab, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Started(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Started() = %v; want Canceled", err)
	}
}

func TestResultOfAnEarlierStep(t *testing.T) {
	tab := table(t)
	fd := tab.Call("open /etc/hostname", unix.SYS_OPENAT, unix.AT_FDCWD, "/etc/hostname", unix.O_RDONLY, 0)
	tab.Call("stdin", unix.SYS_DUP3, fd, 0, 0)
	tab.Call("fail in any way", unix.SYS_CHDIR, "/nowhere").IgnoreAny()
	r := shell(t, tab, "cat; ls /proc/self/fd | wc -l")
	want, err := os.ReadFile("/etc/hostname")
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, tab, Options{})
	if err := p.Started(limit(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	// Descriptor 3 is the one that ls reads the directory by.
	if got := output(t, r); got != string(want)+"4\n" {
		t.Errorf("the program saw %q; want the host's name and 4 descriptors", got)
	}
}

func TestManyStartsAtOnce(t *testing.T) {
	before := descriptors(t)
	var wg sync.WaitGroup
	errs := make(chan error, 1000)
	for range 8 {
		wg.Go(func() {
			for i := range 60 {
				if err := once(t); err != nil {
					errs <- err
				}
				if i%10 == 0 {
					runtime.GC()
					if err := exec.Command("/bin/true").Run(); err != nil {
						errs <- fmt.Errorf("os/exec beside it: %w", err)
					}
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); !errors.Is(err, unix.ECHILD) {
		t.Errorf("a child is left: %d, %v", pid, err)
	}
}

func once(t *testing.T) error {
	tab, err := NewTable()
	if err != nil {
		return err
	}
	defer tab.Close()
	tab.Notify("tell")
	tab.Wait("wait")
	tab.Clone("clone", unix.CLONE_NEWPID|unix.CLONE_NEWNS|unix.CLONE_NEWIPC|unix.CLONE_NEWUTS)
	tab.Exec("/bin/true", []string{"true"}, nil)
	p, err := tab.Start(Options{Flags: unix.CLONE_NEWUSER})
	if err != nil {
		return err
	}
	defer p.Close()
	ctx := limit(t)
	if err = p.Notified(ctx); err == nil {
		err = WriteMappings(p.Pid(), maps, maps)
	}
	if err == nil {
		err = p.Release()
	}
	if err == nil {
		err = p.Started(ctx)
	}
	if err != nil {
		return errors.Join(err, p.Kill())
	}
	status, err := p.Wait()
	if err == nil && status.ExitStatus() != 0 {
		err = fmt.Errorf("exit status %d", status.ExitStatus())
	}
	return err
}

func descriptors(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

func TestIdentity(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	pidfd := os.NewFile(uintptr(fd), "pidfd")
	defer pidfd.Close()
	id, err := Identify(cmd.Process.Pid, pidfd)
	if err != nil {
		t.Fatal(err)
	}
	same, err := id.Open()
	if err != nil {
		t.Fatalf("Open() of a running process: %v", err)
	}
	same.Close()
	other := id
	other.Start++
	if _, err := other.Open(); !errors.Is(err, ErrGone) {
		t.Errorf("Open() of another start time: %v; want ErrGone", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	if _, err := id.Open(); !errors.Is(err, ErrGone) {
		t.Errorf("Open() of a process that has ended: %v; want ErrGone", err)
	}
}

// TestShed: a child that waits is another program than ours, without our
// memory, environment and descriptors, and nobody else can look into it.
func TestShed(t *testing.T) {
	t.Setenv("SECRET", "ours")
	tab := table(t)
	user := joinable(t)
	tab.Call("join user namespace", unix.SYS_SETNS, user, unix.CLONE_NEWUSER)
	tab.Clone("clone", unix.CLONE_NEWPID)
	tab.Notify("tell")
	tab.Wait("wait")
	stdout := shell(t, tab, "echo $$ $(ls /proc/self/fd | wc -l)")
	p := start(t, tab, Options{Shed: true})
	if err := p.Notified(limit(t)); err != nil {
		t.Fatal(err)
	}
	dir := fmt.Sprintf("/proc/%d/", p.Pid())
	if exe, err := os.Readlink(dir + "exe"); exe != "/memfd:stub (deleted)" {
		t.Errorf("its program is %q, %v", exe, err)
	}
	if f, err := os.OpenFile(dir+"exe", os.O_RDWR, 0); err == nil {
		if _, err := f.WriteString("x"); err == nil {
			t.Error("its program can be written to")
		}
	}
	if env, err := os.ReadFile(dir + "environ"); len(env) > 0 || err != nil {
		t.Errorf("its environment is %q, %v", env, err)
	}
	mapped, err := os.ReadFile(dir + "maps")
	if err != nil || strings.Count(string(mapped), "\n") > 8 {
		t.Errorf("its memory is %s, %v", mapped, err)
	}
	if st, err := os.Stat(dir + "mem"); err != nil || st.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Errorf("its memory belongs to %v, %v; want the host's root: it is not dumpable", st, err)
	}
	if err := errors.Join(p.Release(), p.Started(limit(t))); err != nil {
		t.Fatal(err)
	}
	if got := output(t, stdout); got != "1 4\n" {
		t.Errorf("the program says %q", got)
	}
	// What fails is named as without.
	tab = table(t)
	tab.Call("enter /nowhere", unix.SYS_CHDIR, "/nowhere")
	tab.Exec("/bin/true", []string{"true"}, nil)
	p = start(t, tab, Options{Shed: true})
	var step *StepError
	if err := p.Started(limit(t)); !errors.As(err, &step) || step.Step != "enter /nowhere" || step.Err != unix.ENOENT {
		t.Errorf("Started() = %v", err)
	}
}

// joinable is a user namespace.
func joinable(t *testing.T) *os.File {
	t.Helper()
	f, err := UserNamespace(maps, maps)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestUndumpable: also without shedding nobody but the host's root may look
// into a child, however little power that has by then.
func TestUndumpable(t *testing.T) {
	for _, shed := range []bool{false, true} {
		tab := table(t)
		type header struct{ version, pid uint32 }
		tab.Call("drop capabilities", unix.SYS_CAPSET, Struct(tab, &header{version: unix.LINUX_CAPABILITY_VERSION_3}), make([]byte, 24))
		tab.Notify("tell")
		tab.Wait("wait")
		tab.Exec("/bin/true", []string{"true"}, nil)
		p := start(t, tab, Options{Shed: shed})
		if err := p.Notified(limit(t)); err != nil {
			t.Fatal(err)
		}
		// Root that may not trace everybody.
		look := exec.Command("setpriv", "--bounding-set", "-sys_ptrace", "ls", "-l", fmt.Sprintf("/proc/%d/cwd/", p.Pid()))
		if look.Run() == nil {
			t.Errorf("shed %v: somebody can look into the child", shed)
		}
	}
}
