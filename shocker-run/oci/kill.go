package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/cgroup/group"
	"shocker.sh/lib/spawn"
	"shocker.sh/shocker-run/internal/signals"
)

// kill sends a signal.
func (b *box) kill(ctx context.Context, name string, all bool) error {
	if name == "" {
		name = "TERM"
	}
	var sig unix.Signal
	if name != "0" { // which asks only whether it lives (kill(2))
		var err error
		if sig, err = signals.Parse(name); err != nil {
			return err
		}
	}
	status, pidfd, err := b.status()
	if err != nil {
		return err
	}
	if pidfd != nil {
		defer pidfd.Close()
	}
	if all || sig == unix.SIGKILL && b.sharesPIDs() {
		// Without a pid namespace of its own the others do not end with the first.
		left, err := b.left()
		if err != nil {
			return err
		}
		if left || all && pidfd == nil {
			return b.signalAll(ctx, sig)
		}
		// Somebody has removed the cgroup, and the process lives.
	}
	if status == specs.StateStopped {
		return ErrNotRunning
	}
	err = unix.PidfdSendSignal(int(pidfd.Fd()), sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return ErrNotRunning
	}
	if err != nil {
		return fmt.Errorf("send signal %s to %s: %w", name, b.ID, err)
	}
	if sig == unix.SIGKILL {
		ctx, cancel := context.WithTimeout(ctx, group.DieTimeout)
		defer cancel()
		return b.letDie(ctx, pidfd)
	}
	return nil
}

// sharesPIDs says whether the container lives in a pid namespace that is not
// its own. Of one whose config cannot be read that is not known.
func (b *box) sharesPIDs() bool {
	spec, err := b.spec()
	return err == nil && spec.Linux != nil &&
		!slices.Contains(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.PIDNamespace})
}

// left says whether there are processes in the container's cgroup.
func (b *box) left() (bool, error) {
	g, err := b.group()
	if err != nil {
		return false, err
	}
	pids, err := g.Procs()
	return len(pids) > 0, err
}

// signalAll sends a signal to every process in the container's cgroup.
func (b *box) signalAll(ctx context.Context, sig unix.Signal) error {
	g, err := b.group()
	if err != nil {
		return err
	}
	if sig == unix.SIGKILL {
		return g.Kill(ctx)
	}
	return g.Signal(ctx, sig)
}

func (b *box) letDie(ctx context.Context, pidfd *os.File) error {
	g, err := b.group()
	if err != nil {
		return err
	}
	return g.LetDie(ctx, func(ctx context.Context) error { return spawn.WaitEnd(ctx, pidfd) })
}

func (b *box) thaw() error {
	g, err := b.group()
	if err != nil {
		return err
	}
	return g.Thaw()
}
