package group

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/cgroup/hierarchy"
	"shocker.sh/lib/undo"
)

// Saved is a group in a form to be written down: where it is, and by its inodes
// which one.
type Saved struct {
	Path string     `json:"path"`
	Dirs []SavedDir `json:"dirs"`
}

// SavedDir is a group's directory in one hierarchy.
type SavedDir struct {
	hierarchy.Hierarchy
	Ino uint64 `json:"ino"`
}

// Save returns the group as it is now; hierarchies in which it is not there are
// left out.
func (g *Group) Save() (Saved, error) {
	s := Saved{Path: g.Path}
	for _, h := range g.Hierarchies {
		ino, err := inode(g.In(h))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return Saved{}, err
		}
		s.Dirs = append(s.Dirs, SavedDir{h, ino})
	}
	return s, nil
}

// Load returns a group that was saved, in the hierarchies where it is still
// there. If it is gone, also by its place having been taken by another one, that
// is none, and the group is empty to all who ask.
func Load(s Saved) (*Group, error) {
	g := &Group{Path: s.Path}
	for _, d := range s.Dirs {
		ino, err := inode(g.In(d.Hierarchy))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err == nil && ino == d.Ino {
			g.Hierarchies = append(g.Hierarchies, d.Hierarchy)
		}
	}
	return g, nil
}

// Remove kills what is in the group and removes it, with all below it. A group
// that is not there is removed already.
func (g *Group) Remove() error {
	s, err := g.Save()
	if err != nil {
		return err
	}
	dirs := make([]undo.Dir, len(s.Dirs))
	for i, d := range s.Dirs {
		dirs[i] = undo.Dir{Path: g.In(d.Hierarchy), Ino: d.Ino}
	}
	return undo.RemoveCgroups(dirs)
}

// Chown gives the group of v2 to a user, so that it can make groups below it
// and move processes there. The limits stay ours (runtime-spec,
// config-linux.md, "Cgroup ownership").
func (g *Group) Chown(uid int) error {
	for _, h := range g.Hierarchies {
		if h.Version != 2 {
			continue
		}
		if err := os.Chown(g.In(h), uid, -1); err != nil {
			return err
		}
		files, err := os.ReadFile("/sys/kernel/cgroup/delegate") // since kernel 4.15
		if err != nil {
			return fmt.Errorf("files of a delegated cgroup: %w", err)
		}
		for file := range strings.FieldsSeq(string(files)) {
			err := os.Chown(filepath.Join(g.In(h), file), uid, -1)
			if err != nil && !errors.Is(err, unix.ENOENT) {
				return err
			}
		}
	}
	return nil
}
