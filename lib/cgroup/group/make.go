package group

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/undo"
)

// Stage is the name under which the undo of a group is written.
const Stage = "shocker-cg"

// Make makes the group in every hierarchy, with its undo (class rm) in log,
// and has the controllers that are wanted of cgroup v2 handed down to it.
//
// With adopt, directories that exist already are used as well, if nothing is
// in them and they are not frozen; they stay somebody else's. Without it they
// are ErrExists. On an error nothing is left of what Make made. Else the
// returned function undoes it, for when a later step fails.
func (g *Group) Make(log *undo.Log, adopt bool, want Controllers) (_ func() error, retErr error) {
	var free []undo.Dir
	for _, dir := range g.Dirs() {
		_, err := inode(dir)
		if err == nil && !adopt {
			return nil, fmt.Errorf("%s: %w", dir, ErrExists)
		}
		if errors.Is(err, unix.ENOENT) {
			free = append(free, undo.Dir{Path: dir})
		} else if err != nil {
			return nil, err
		}
	}
	if len(free) < len(g.Hierarchies) { // they are to be adopted
		if err := g.idle(); err != nil {
			return nil, err
		}
	}
	entry := &undo.Entry{Stage: Stage, Class: undo.Rm, Op: undo.OpCgroup, Dirs: free}
	unmake := func() error { return nil }
	if len(free) > 0 {
		if err := log.Push(entry); err != nil {
			return nil, err
		}
		unmake = func() error { return log.Undo(entry) }
	}
	m := maker{want: want, free: free}
	defer func() {
		if retErr != nil {
			// Only what is known to be made here goes: another command may
			// be at work on the same record.
			entry.Dirs = m.made
			retErr = errors.Join(retErr, unmake())
			for _, dir := range free {
				retErr = errors.Join(retErr, undo.PruneCgroup(dir.Path))
			}
		}
	}()
	for _, h := range g.Hierarchies {
		if err := m.make(h, g.path(h)); err != nil {
			return nil, err
		}
	}
	if len(free) > 0 {
		entry.Dirs = m.made
		if g.Owner != "" {
			// The last is the last to be removed: one mark is enough.
			setOwner(m.made[len(m.made)-1].Path, g.Owner)
		}
		if err := log.Update(entry); err != nil {
			return nil, err
		}
	}
	return unmake, nil
}

// MakeWith is Make, with adopt, for a tree that systemd manages: start has it
// make the unit's group and put a process into it, in the hierarchies that it
// knows; here it is made in the others.
func (g *Group) MakeWith(log *undo.Log, unit string, want Controllers, start func() error) (_ func() error, retErr error) {
	missing, err := g.Missing()
	if err != nil {
		return nil, err
	}
	if err := g.idle(); err != nil {
		return nil, err
	}
	entry := &undo.Entry{Stage: Stage, Class: undo.Rm, Op: undo.OpCgroup, Name: unit}
	for _, dir := range missing {
		entry.Dirs = append(entry.Dirs, undo.Dir{Path: dir})
	}
	if err := log.Push(entry); err != nil {
		return nil, err
	}
	unmake := func() error { return log.Undo(entry) }
	defer func() {
		if retErr != nil {
			// Whatever came into being at a path that was free is ours.
			retErr = errors.Join(retErr, identify(entry), unmake())
		}
	}()
	if err := start(); err != nil {
		return nil, err
	}
	m := maker{want: want}
	for _, h := range g.Hierarchies {
		if err := m.make(h, g.path(h)); err != nil {
			return nil, err
		}
	}
	if err := identify(entry); err != nil {
		return nil, err
	}
	return unmake, log.Update(entry)
}

// identify adds the inodes to an entry.
func identify(e *undo.Entry) error {
	for i := range e.Dirs {
		ino, err := inode(e.Dirs[i].Path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		e.Dirs[i].Ino = ino
	}
	return nil
}

// idle refuses a group that somebody uses, in words that users of runc know.
func (g *Group) idle() error {
	populated, err := g.Populated()
	if err != nil {
		return err
	}
	if populated {
		return fmt.Errorf("container's cgroup is not empty: %s: %w", g.Path, ErrInUse)
	}
	frozen, err := g.Frozen()
	if err == nil && frozen {
		err = fmt.Errorf("container's cgroup unexpectedly frozen: %s: %w", g.Path, ErrFrozen)
	}
	return err
}

// inode returns the inode of a cgroup.
func inode(dir string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return 0, &os.PathError{Op: "lstat", Path: dir, Err: err}
	}
	return st.Ino, nil
}

// Ours says whether a cgroup is one that this package made.
func Ours(info fs.FileInfo) bool { return info.IsDir() && info.Mode()&fs.ModeSticky != 0 }
