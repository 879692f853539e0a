package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/spawn"
)

// Start lets the created container execute its program. An error that is
// ErrNotFound or ErrNotExecutable is the program's own; on any the container
// is gone.
func (c *Container) Start(ctx context.Context) error {
	err := c.hooks(ctx, "startContainer", specs.StateCreated)
	if err == nil {
		err = c.proc.Release()
	}
	if err == nil {
		err = c.explain(c.proc.Started(ctx))
	}
	if err == nil {
		err = c.hooks(ctx, "poststart", specs.StateRunning)
	}
	if err != nil {
		c.ended = true
		return Plainly(errors.Join(err, c.proc.Kill()))
	}
	return nil
}

// Kill ends the container and waits for its end.
func (c *Container) Kill() error {
	if c.ended {
		return nil
	}
	c.ended = true
	return c.proc.Kill()
}

// Wait waits until the program has ended and returns its exit status as a
// shell counts it: 128 and the signal's number if a signal ended it.
func (c *Container) Wait() (int, error) {
	status, err := c.proc.Wait()
	c.ended = true
	if err != nil {
		return 0, fmt.Errorf("wait for the container: %w", err)
	}
	return exitStatus(status), nil
}

func exitStatus(status unix.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

// Signal sends the program a signal.
func (c *Container) Signal(sig unix.Signal) error {
	pidfd, err := c.proc.Pidfd()
	if err != nil {
		return err
	}
	return sendSignal(pidfd, sig)
}

// Pidfd names the container's process; Close closes it.
func (c *Container) Pidfd() (*os.File, error) { return c.proc.Pidfd() }

func sendSignal(pidfd *os.File, sig unix.Signal) error {
	err := unix.PidfdSendSignal(int(pidfd.Fd()), sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return ErrGone
	}
	if err != nil {
		return fmt.Errorf("send %s: %w", unix.SignalName(sig), err)
	}
	return nil
}

// Pid is the pid of the container's process on the host.
func (c *Container) Pid() int { return c.proc.Pid() }

// OOMKills is how many processes were killed for want of memory.
func (c *Container) OOMKills() int { return c.oomKills() }

// Close frees what the parent holds of the container. It goes on.
func (c *Container) Close() { c.proc.Close() }

// explain says in words what it means that a step failed.
func (c *Container) explain(err error) error {
	if errors.Is(err, spawn.ErrDied) && c.oomKills() > 0 {
		return fmt.Errorf("%w: the container has too little memory for that: raise its limit", err)
	}
	var step *spawn.StepError
	if !errors.As(err, &step) {
		return err
	}
	if strings.HasPrefix(step.Step, "id-map ") && step.Err == unix.EINVAL {
		return unmappable(err)
	}
	if strings.HasPrefix(step.Step, openCwd) && step.Err == unix.ENOENT {
		return fmt.Errorf("%w %s: %w", ErrNoCwd, c.spec.Process.Cwd, step.Err)
	}
	if !strings.HasPrefix(step.Step, "execute ") {
		return err
	}
	errno, _ := step.Err.(unix.Errno)
	return notExecuted(c.spec.Process.Args[0], append(c.proc.Tried(), errno))
}

// notExecuted says in words why none of the paths of a program could be
// executed.
func notExecuted(program string, tried []unix.Errno) error {
	errno := tried[len(tried)-1]
	for _, e := range tried {
		// Something that is there and cannot be executed tells more than a
		// place where nothing is.
		if e != 0 && e != unix.ENOENT && e != unix.ENOTDIR {
			errno = e
		}
	}
	switch errno {
	case unix.ENOENT, unix.ENOTDIR:
		if strings.Contains(program, "/") {
			return fmt.Errorf("exec %s: %w: %w, or the interpreter that it names", program, errno, ErrNotFound)
		}
		return fmt.Errorf("%q: %w in $PATH", program, ErrNotFound)
	case unix.EACCES:
		return fmt.Errorf("%q: %w: %w: it is a directory, not executable or on a noexec mount", program, ErrNotExecutable, errno)
	case unix.ENOEXEC:
		return fmt.Errorf("%q: %w: %w: it is not a program for this machine, and has no #! line", program, ErrNotExecutable, errno)
	}
	return fmt.Errorf("%q: %w: %w", program, ErrNotExecutable, errno)
}
