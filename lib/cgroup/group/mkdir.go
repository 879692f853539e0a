package group

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/cgroup/hierarchy"
	"shocker.sh/lib/undo"
)

// Controllers of cgroup v2 that a group wants to be handed down.
type Controllers struct {
	Need []string // it is an error if one is not to be had
	Like []string // good to have
}

// ours is the mode of the groups that we make; see the package's comment.
const ours = 0o755 | fs.ModeSticky

// tries limits how often a parent that vanished is made again: each time
// another container's group, the last one below it, has just been removed.
const tries = 100

// maker makes the directories of one group.
type maker struct {
	want Controllers
	free []undo.Dir // to be made; the others are there
	made []undo.Dir
}

// make makes the group's directory in one hierarchy, and its parents.
func (m *maker) make(h hierarchy.Hierarchy, path string) error {
	for try := 1; ; try++ {
		err := m.descend(h, path)
		if err == nil || try == tries || !gone(err) {
			return err
		}
	}
}

func gone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) }

func (m *maker) descend(h hierarchy.Hierarchy, path string) error {
	dir := h.Mount
	names := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for i, name := range names {
		if h.Version == 2 {
			if err := handDown(h, dir, m.want); err != nil {
				return err
			}
		}
		parent := dir
		dir = filepath.Join(dir, name)
		err := os.Mkdir(dir, ours)
		if i == len(names)-1 && slices.Contains(m.free, undo.Dir{Path: dir}) {
			if errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("%s: %w", dir, ErrExists)
			}
			if err == nil {
				ino, err := inode(dir)
				if err != nil {
					return err
				}
				m.made = append(m.made, undo.Dir{Path: dir, Ino: ino})
			}
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make cgroup: %w", err)
		}
		if h.Version == 1 && h.Has("cpuset") {
			if err := inherit(parent, dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// inherit gives a cpuset of v1 that has no processors or memory nodes those
// of its parent: until it has both, no process can enter it (cpuset(7)).
func inherit(parent, dir string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		have, err := Read(dir, file)
		if err != nil {
			return err
		}
		if have != "" {
			continue
		}
		value, err := Read(parent, file)
		if err != nil {
			return err
		}
		if err := Write(dir, file, value); err != nil {
			return err
		}
	}
	return nil
}

// Enable has controllers handed down to a group that is there.
func (g *Group) Enable(want Controllers) error {
	for _, h := range g.Hierarchies {
		if h.Version != 2 {
			continue
		}
		dir := h.Mount
		for name := range strings.SplitSeq(strings.TrimPrefix(g.path(h), "/"), "/") {
			if err := handDown(h, dir, want); err != nil {
				return err
			}
			dir = filepath.Join(dir, name)
		}
	}
	return nil
}

// handDown enables controllers for the children of dir, all in one write: one
// by one, some would turn a group with processes of its own into a threaded
// one, where others stand in the way (the "no internal processes" rule of
// cgroups(7)). Those processes are not ours to move.
func handDown(h hierarchy.Hierarchy, dir string, want Controllers) error {
	const file = "cgroup.subtree_control"
	enabled, err := Read(dir, file)
	if err != nil {
		return err
	}
	available, err := Read(dir, "cgroup.controllers")
	if err != nil {
		return err
	}
	on, has := strings.Fields(enabled), strings.Fields(available)
	var need, like []string
	for _, c := range want.Need {
		if !slices.Contains(has, c) {
			return fmt.Errorf("%w: %s has no %s; it must be in %s of its parent", ErrNoController, dir, c, file)
		}
		if !slices.Contains(on, c) {
			need = append(need, "+"+c)
		}
	}
	for _, c := range want.Like {
		if slices.Contains(has, c) && !slices.Contains(on, c) && !slices.Contains(want.Need, c) {
			like = append(like, "+"+c)
		}
	}
	if len(need)+len(like) == 0 {
		return nil
	}
	err = Write(dir, file, strings.Join(slices.Concat(need, like), " "))
	if err != nil && !errors.Is(err, unix.EBUSY) && len(need) > 0 && len(like) > 0 {
		err = Write(dir, file, strings.Join(need, " "))
	}
	switch {
	case err == nil || len(need) == 0:
		return nil
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w: %w: processes live in this group itself; name another one by SHOCKER_CGROUP", ErrNoController, err)
	case gone(err):
		return err
	}
	return fmt.Errorf("%w: %w", ErrNoController, err)
}
