package group

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Attach moves a process, with all its threads, into the group; pid 0 is the
// caller itself. A hierarchy in which the group was not made is passed over.
func (g *Group) Attach(pid int) error { return g.attach(pid, "cgroup.procs") }

// AttachThread moves a process that is known to have one thread. On v1 it is
// steadier than Attach: cgroup.procs makes the kernel wait for an RCU grace
// period, up to 10 ms, tasks does not.
func (g *Group) AttachThread(pid int) error { return g.attach(pid, "tasks") }

func (g *Group) attach(pid int, file1 string) error {
	frozen, err := g.Frozen()
	if err != nil {
		return err
	}
	if frozen { // it would stop there, and who waits for it with it
		return fmt.Errorf("%s: %w", g.Path, ErrFrozen)
	}
	joined := false
	for _, h := range g.Hierarchies {
		file := file1
		if h.Version == 2 {
			file = "cgroup.procs"
		}
		err := enter(g.In(h), file, pid)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		joined = true
	}
	if !joined {
		return fmt.Errorf("%s: %w", g.Path, ErrGone)
	}
	return nil
}

// enter writes a pid. EINVAL may say that the process is still being made.
func enter(dir, file string, pid int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	for {
		err := Write(dir, file, strconv.Itoa(pid))
		if !errors.Is(err, unix.EINVAL) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Millisecond):
		}
	}
}
