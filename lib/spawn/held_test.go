package spawn

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// held starts a child that waits in dir, and forgets all that only its creator
// knows.
func held(t *testing.T, dir string, steps func(*Table)) (pidfd *os.File) {
	t.Helper()
	tab, err := NewTableIn(dir)
	if err != nil {
		t.Fatal(err)
	}
	tab.Notify("tell")
	// Its creator may be faster than the child is at its next step.
	tab.Call("rest", unix.SYS_NANOSLEEP, Struct(tab, &unix.Timespec{Nsec: 50e6}), 0)
	tab.Hold("wait for the start")
	steps(tab)
	p, err := tab.Start(Options{})
	if err != nil {
		tab.Close()
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Notified(limit(t)); err != nil {
		t.Fatal(errors.Join(err, p.Kill()))
	}
	fd, err := unix.PidfdOpen(p.Pid(), 0)
	if err != nil {
		t.Fatal(errors.Join(err, p.Kill()))
	}
	pid := p.Pid()
	t.Cleanup(func() {
		if err := kill(pid); err != nil {
			t.Error(err)
		}
	})
	return os.NewFile(uintptr(fd), "pidfd")
}

func TestHeld(t *testing.T) {
	dir := t.TempDir()
	var stdout *os.File
	pidfd := held(t, dir, func(tab *Table) { stdout = shell(t, tab, "echo goes on") })
	if is, err := Held(dir); !is || err != nil {
		t.Errorf("Held(dir) = %v, %v", is, err)
	}
	p, err := Attach(dir, pidfd)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := errors.Join(p.Release(), p.Started(limit(t))); err != nil {
		t.Fatal(err)
	}
	if got := output(t, stdout); got != "goes on\n" {
		t.Errorf("it says %q", got)
	}
	if is, err := Held(dir); is || err != nil {
		t.Errorf("after the start Held(dir) = %v, %v", is, err)
	}
	if err := Unhold(dir); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); len(left) > 0 || err != nil {
		t.Errorf("left in the directory: %v, %v", left, err)
	}
}

func TestHeldProgramIsNotThere(t *testing.T) {
	dir := t.TempDir()
	pidfd := held(t, dir, func(tab *Table) {
		tab.Call("execute /nosuch", unix.SYS_EXECVE, "/nosuch", 0, 0).IgnoreAny()
		tab.Exec("/etc/passwd", []string{"x"}, nil)
	})
	p, err := Attach(dir, pidfd)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	err = errors.Join(p.Release(), p.Started(limit(t)))
	var step *StepError
	if !errors.As(err, &step) || step.Step != "execute /etc/passwd" || step.Err != unix.EACCES {
		t.Errorf("Started() = %v", err)
	}
	if got := p.Tried(); len(got) != 2 || got[0] != unix.ENOENT || got[1] != unix.EACCES {
		t.Errorf("Tried() = %v", got)
	}
}

func TestHeldIsKilled(t *testing.T) {
	dir := t.TempDir()
	pidfd := held(t, dir, func(tab *Table) { shell(t, tab, "true") })
	p, err := Attach(dir, pidfd)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := p.Started(limit(t)); !errors.Is(err, ErrDied) {
		t.Errorf("Started() = %v", err)
	}
	if _, err := Attach(dir, nil); !errors.Is(err, ErrNotHeld) {
		t.Errorf("Attach() = %v", err)
	}
}

// A held child ends when it is asked to, also as the first of a pid namespace;
// what asks for something else it ignores there.
func TestHeldEndsOnSignals(t *testing.T) {
	for _, shed := range []bool{false, true} {
		for _, sig := range ending {
			tab, err := NewTableIn(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			tab.EndOnSignals()
			tab.Notify("tell")
			tab.Hold("wait for the start")
			shell(t, tab, "true")
			p := start(t, tab, Options{Flags: unix.CLONE_NEWPID, Shed: shed})
			if err := p.Notified(limit(t)); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(unix.Kill(p.Pid(), unix.SIGUSR1), unix.Kill(p.Pid(), sig)); err != nil {
				t.Fatal(err)
			}
			if status, err := p.Wait(); err != nil || status.ExitStatus() != 128+int(sig) {
				t.Errorf("%v of one that has shed us: %v: %#x, %v; want exit status %d", sig, shed, status, err, 128+int(sig))
			}
		}
	}
}

func TestNothingHeld(t *testing.T) {
	if _, err := Attach(t.TempDir(), nil); !errors.Is(err, ErrNotHeld) {
		t.Errorf("Attach() = %v", err)
	}
}
