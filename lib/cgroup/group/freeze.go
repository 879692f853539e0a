package group

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

	"shocker.sh/lib/cgroup/hierarchy"
	"shocker.sh/lib/undo"
)

// freezer returns the hierarchy whose freezer stops the group's processes.
func (g *Group) freezer() (hierarchy.Hierarchy, error) {
	h, ok := g.Find("freezer")
	if len(g.Hierarchies) == 0 {
		return h, fmt.Errorf("%s: %w", g.Path, ErrGone)
	}
	if !ok {
		return h, fmt.Errorf("freezer: %w", ErrNoController)
	}
	return h, nil
}

// Frozen says whether the group has been frozen, be it in full yet or not. One
// that is not there is not frozen.
func (g *Group) Frozen() (bool, error) {
	h, err := g.freezer()
	if err != nil {
		return false, nil
	}
	file, thawed := "freezer.state", "THAWED"
	if h.Version == 2 {
		file, thawed = "cgroup.freeze", "0"
	}
	state, err := Read(g.In(h), file)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return state != thawed, err
}

// Freeze stops every process of the group where it is, and returns when all
// have stopped. If that cannot be had before ctx ends, the group is thawed.
func (g *Group) Freeze(ctx context.Context) (retErr error) {
	h, err := g.freezer()
	if err != nil {
		return err
	}
	defer func() {
		if retErr != nil && !errors.Is(retErr, fs.ErrNotExist) {
			retErr = errors.Join(retErr, g.Thaw())
		}
	}()
	if h.Version == 2 {
		return freeze2(ctx, g.In(h))
	}
	return freeze1(ctx, g.In(h))
}

// Thaw lets the processes go on.
func (g *Group) Thaw() error {
	h, err := g.freezer()
	if err != nil {
		return err
	}
	if h.Version == 2 {
		return Write(g.In(h), "cgroup.freeze", "0")
	}
	return Write(g.In(h), "freezer.state", "THAWED")
}

// DieTimeout is for LetDie by who does not wait for the end itself.
const DieTimeout = time.Second

// diePatience is how long a process may take to end before it is thawed again.
const diePatience = 20 * time.Millisecond

// LetDie thaws what was killed: on v1 it does not die frozen, be it in a group below
// that the container itself has made and frozen. Others in the container that are not
// dead yet may freeze it again; so there it is thawed until its end, for which the function
// waits, or until ctx is done. A group that is not there is none.
func (g *Group) LetDie(ctx context.Context, ended func(context.Context) error) error {
	h, err := g.freezer()
	if err != nil {
		return nil
	}
	if h.Version == 2 {
		if err := g.Thaw(); err != nil && !gone(err) {
			return err
		}
		return nil
	}
	for {
		if err := undo.ThawCgroup(g.In(h)); err != nil {
			return err
		}
		once, cancel := context.WithTimeout(ctx, diePatience)
		err := ended(once)
		cancel()
		if err == nil || ctx.Err() != nil {
			return nil
		}
	}
}

// freeze2 waits for "frozen 1" in cgroup.events, which poll(2) announces.
func freeze2(ctx context.Context, dir string) error {
	events, err := os.Open(filepath.Join(dir, "cgroup.events"))
	if err != nil {
		return err
	}
	defer events.Close()
	if err := Write(dir, "cgroup.freeze", "1"); err != nil {
		return err
	}
	for {
		// Read through this descriptor: the next poll tells of what changes
		// from here on.
		var text [256]byte
		n, err := events.ReadAt(text[:], 0)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		frozen, err := flag(string(text[:n]), "frozen")
		if err != nil || frozen {
			return err
		}
		if err := poll(ctx, events); err != nil {
			return fmt.Errorf("freeze %s: %w", dir, err)
		}
	}
}

// freeze1 asks again while the kernel says FREEZING: v1 loses the race against
// processes that keep forking, and freezes the new ones only when it is told
// again. Now and then all are let go, so that the odds change.
func freeze1(ctx context.Context, dir string) error {
	for try := 1; ; try++ {
		if err := Write(dir, "freezer.state", "FROZEN"); err != nil {
			return err
		}
		state, err := Read(dir, "freezer.state")
		if err != nil || state == "FROZEN" {
			return err
		}
		if try%50 == 0 {
			if err := Write(dir, "freezer.state", "THAWED"); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("freeze %s: %w", dir, ctx.Err())
		case <-time.After(100 * time.Microsecond):
		}
	}
}

// poll waits until the kernel announces a change of a cgroup's file.
func poll(ctx context.Context, f *os.File) error {
	const slice = 100 // ms; how late the end of ctx is seen
	for {
		fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}
		n, err := unix.Poll(fds, slice)
		if n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
