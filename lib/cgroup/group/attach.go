package group

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/cgroup/hierarchy"
	"shocker.sh/lib/sys"
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
	return g.enter(pid, file1, Joining{})
}

// Joining says how a process joins the group of a container that runs.
type Joining struct {
	// Init is the pid of the container's first process, 0 if there is none.
	// In v2 it may have moved itself to a group below, and made the
	// container's own one that takes no process: then its group is joined.
	Init int
	// Below are existing groups below the container's, by controller; "" is
	// for all that are not named.
	Below map[string]string
	// Frozen joins a group that is frozen, too; the process stops there.
	Frozen bool
}

// Join moves a process that has one thread into the group of a container that
// runs.
func (g *Group) Join(pid int, j Joining) error {
	if !j.Frozen {
		frozen, err := g.Frozen()
		if err != nil {
			return err
		}
		if frozen {
			return fmt.Errorf("%s: %w", g.Path, ErrFrozen)
		}
	}
	for c := range j.Below {
		known := func(h hierarchy.Hierarchy) bool { return h.Has(c) }
		if c != "" && !slices.ContainsFunc(g.Hierarchies, known) {
			return fmt.Errorf("unknown controller %q: %w", c, ErrNoController)
		}
	}
	return g.enter(pid, "tasks", j)
}

func (g *Group) enter(pid int, file1 string, j Joining) error {
	joined := false
	for _, h := range g.Hierarchies {
		file, below := file1, j.below(h)
		if h.Version == 2 {
			file = "cgroup.procs"
		}
		err := enter(filepath.Join(g.In(h), below), file, pid)
		if errors.Is(err, unix.EBUSY) && h.Version == 2 && j.Init != 0 && below == "/" {
			err = g.enterAs(h, pid, j.Init, err)
		}
		if errors.Is(err, fs.ErrNotExist) && below == "/" {
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

func (j Joining) below(h hierarchy.Hierarchy) string {
	for _, c := range h.Controllers {
		if path, ok := j.Below[c]; ok {
			return filepath.Clean("/" + path)
		}
	}
	return filepath.Clean("/" + j.Below[""])
}

// enterAs moves a process to where the container's first one is, if that is
// below the group.
func (g *Group) enterAs(h hierarchy.Hierarchy, pid, init int, busy error) error {
	path, err := hierarchy.Of(init, h)
	if err != nil {
		return errors.Join(busy, err)
	}
	if !strings.HasPrefix(path, g.path(h)+"/") {
		return fmt.Errorf("%w: and the container's first process is in %s", busy, path)
	}
	return enter(filepath.Join(h.Mount, path), "cgroup.procs", pid)
}

// Door opens the group for CLONE_INTO_CGROUP (clone3(2), kernel 5.7): a process
// is born in it. It is nil where v2 is not all that there is.
func (g *Group) Door() (*os.File, error) {
	if len(g.Hierarchies) != 1 || g.Hierarchies[0].Version != 2 {
		return nil, nil
	}
	return sys.OpenDir(g.In(g.Hierarchies[0]))
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
