package run

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/cgroup/group"
	libcontainer "shocker.sh/lib/container"
	"shocker.sh/lib/record"
	"shocker.sh/lib/spawn"
	"shocker.sh/lib/stage"
	"shocker.sh/lib/store"
	"shocker.sh/lib/sys"
	"shocker.sh/lib/undo"
	"shocker.sh/shocker-run/internal/logs"
	"shocker.sh/shocker-run/internal/signals"
)

// Alive says whether the container's first process is there.
func Alive(host stage.Host, id string) (bool, error) {
	pidfd, _, err := process(host, id)
	if errors.Is(err, ErrNotRunning) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, pidfd.Close()
}

// Signal sends the container's first process a signal, or returns
// ErrNotRunning.
func Signal(host stage.Host, id string, sig unix.Signal) error {
	pidfd, _, err := process(host, id)
	if err != nil {
		return err
	}
	defer pidfd.Close()
	if err := send(pidfd, id, sig); err != nil || sig != unix.SIGKILL {
		return err
	}
	return letDie(host, id, pidfd)
}

// letDie lets a container that was killed go on to its end if it is frozen, be it
// by itself.
func letDie(host stage.Host, id string, pidfd *os.File) error {
	if st, err := openStore(host, id); err != nil || st == nil {
		return err
	}
	spec, err := specOf(host, id)
	if errors.Is(err, record.ErrInvalid) || errors.Is(err, record.ErrNoID) {
		return nil // damaged: what its group is nobody knows here
	}
	if err != nil {
		return err
	}
	g, err := groupOf(host, spec)
	if err != nil || g == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), group.DieTimeout)
	defer cancel()
	return g.LetDie(ctx, func(ctx context.Context) error { return spawn.WaitEnd(ctx, pidfd) })
}

func send(pidfd *os.File, id string, sig unix.Signal) error {
	err := unix.PidfdSendSignal(int(pidfd.Fd()), sig, nil, 0)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("send %s to %s: %w", unix.SignalName(sig), id, err)
	}
	return nil
}

// Stop sends the container's first process the signal by which its image
// wants to be stopped, SIGTERM if it says nothing, and SIGKILL if it is still
// there after the timeout. It returns once the process has ended; that it does
// not run is no error. Of one of which only the cgroup is known, since another
// runtime started it or its run dir was removed, all processes are signalled.
func Stop(ctx context.Context, host stage.Host, id string, timeout time.Duration) error {
	pidfd, _, err := process(host, id)
	if errors.Is(err, ErrNotRunning) {
		return stopGroup(ctx, host, id, timeout)
	}
	if err != nil {
		return err
	}
	defer pidfd.Close()
	sig, err := stopSignal(host, id)
	if err != nil {
		return err
	}
	if err := send(pidfd, id, sig); err != nil {
		return err
	}
	patient, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := spawn.WaitEnd(patient, pidfd); err == nil || ctx.Err() != nil {
		return err
	}
	if err := errors.Join(send(pidfd, id, unix.SIGKILL), letDie(host, id, pidfd)); err != nil {
		return err
	}
	return spawn.WaitEnd(ctx, pidfd)
}

// stopGroup is Stop by the cgroup alone.
func stopGroup(ctx context.Context, host stage.Host, id string, timeout time.Duration) error {
	if st, err := openStore(host, id); err != nil || st == nil {
		return err
	}
	spec, err := specOf(host, id)
	if err != nil {
		return err
	}
	g, err := groupOf(host, spec)
	if err != nil || g == nil {
		return err
	}
	sig, err := stopSignal(host, id)
	if err != nil {
		return err
	}
	if err := undo.SignalCgroup(g.Dirs(), sig); err != nil {
		return err
	}
	const step = 10 * time.Millisecond // no file of v1 tells when it is empty
	for patience := timeout; patience > 0; patience -= step {
		populated, err := g.Populated()
		if err != nil || !populated {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(step):
		}
	}
	return undo.KillCgroup(ctx, g.Dirs())
}

func stopSignal(host stage.Host, id string) (unix.Signal, error) {
	st, err := openStore(host, id)
	if err != nil || st == nil {
		return unix.SIGTERM, err
	}
	r, err := st.Record(id)
	if err != nil {
		return 0, err
	}
	// An image may say what is not a signal; that must not keep its container
	// from being stopped.
	sig, err := signals.Parse(r.Annotation(record.AnnotationStop))
	if err != nil {
		return unix.SIGTERM, nil
	}
	return sig, nil
}

// ParseSignal reads a signal by its number or by its name, with or without
// SIG.
func ParseSignal(s string) (unix.Signal, error) { return signals.Parse(s) }

// Wait waits until the container's program has ended and everything about it
// is written down, and returns its exit status, or ErrLost if nobody saw it.
func Wait(ctx context.Context, host stage.Host, id string) (int, error) {
	if err := over(ctx, host, id); err != nil {
		return 0, err
	}
	st, err := openStore(host, id)
	if err != nil {
		return 0, err
	}
	if st == nil {
		return 0, fmt.Errorf("container %s: %w", id, store.ErrNoContainer)
	}
	s, err := st.State(id)
	if err != nil {
		return 0, err
	}
	if s.ExitStatus == nil {
		return 0, fmt.Errorf("container %s: %w", id, ErrLost)
	}
	return *s.ExitStatus, nil
}

// over waits until nobody supervises the container any more, and its process
// has ended, should it have outlived its supervisor.
func over(ctx context.Context, host stage.Host, id string) error {
	f, err := os.Open(filepath.Join(host.RunDir(id), libcontainer.SupervisorLock))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	locked := make(chan error, 1)
	go func() {
		locked <- errors.Join(sys.Flock(f, unix.LOCK_SH), f.Close())
	}()
	select {
	case err := <-locked:
		if err != nil {
			return err
		}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	pidfd, _, err := process(host, id)
	if errors.Is(err, ErrNotRunning) {
		return nil
	}
	if err != nil {
		return err
	}
	defer pidfd.Close()
	return spawn.WaitEnd(ctx, pidfd)
}

// LogOptions say what Logs shows.
type LogOptions struct {
	Follow     bool // go on until the program has ended
	Timestamps bool // before every line
	Tail       int  // only the last lines, this many; negative: all
}

// Logs writes what the container's program has written: to out what it wrote
// to stdout, to errOut what it wrote to stderr, byte for byte.
func Logs(ctx context.Context, host stage.Host, id string, out, errOut io.Writer, o LogOptions) error {
	opts := logs.Options{Timestamps: o.Timestamps, Tail: o.Tail}
	if o.Follow {
		done := make(chan struct{})
		opts.Follow = done
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() {
			// If that cannot be found out, what is there is shown.
			_ = over(ctx, host, id)
			close(done)
		}()
	}
	return logs.Read(filepath.Join(host.Store, "containers", id, "log"), out, errOut, opts)
}
