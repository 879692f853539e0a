package undo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/sys"
)

// killTimeout limits how long killed processes may take to leave their cgroup.
const killTimeout = 10 * time.Second

// managerTimeout limits how long systemd may take to see that a unit is empty.
const managerTimeout = 2 * time.Second

func cgroups(e *Entry) error {
	if e.Name != "" {
		if err := leaveToManager(e.Dirs); err != nil {
			return err
		}
	}
	return RemoveCgroups(e.Dirs)
}

// leaveToManager empties the cgroups of a unit, and lets systemd remove those
// that it knows: the kernel tells it of a group that is empty a little later,
// and does not if the group is gone by then, so the unit would stay.
func leaveToManager(dirs []Dir) error {
	ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
	defer cancel()
	var there []string
	for _, d := range dirs {
		is, err := d.is()
		if err != nil {
			return err
		}
		if is {
			there = append(there, d.Path)
		}
	}
	if len(there) == 0 {
		return nil
	}
	if err := KillCgroup(ctx, there); err != nil {
		return err
	}
	for end := time.Now().Add(managerTimeout); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		for _, dir := range there {
			if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
				return nil
			}
		}
	}
	return nil // there may be no systemd any more
}

// RemoveCgroups kills what runs in the given cgroups and removes them, with the
// groups that were made below them and with those of their parents that
// shocker-cg has made and nobody needs any more.
func RemoveCgroups(dirs []Dir) error {
	var busy []string
	for _, d := range dirs {
		is, err := d.is()
		if err != nil {
			return err
		}
		if !is {
			continue
		}
		if err := rmdirTree(d.Path); errors.Is(err, unix.EBUSY) {
			busy = append(busy, d.Path)
		} else if err != nil {
			return err
		}
	}
	if err := killAndRemove(busy); err != nil {
		return err
	}
	for _, d := range dirs {
		if err := PruneCgroup(d.Path); err != nil {
			return err
		}
	}
	return nil
}

// is says whether the group at d.Path is the one that the entry names. Without
// an inode the command was killed before it knew it; then the sticky bit, which
// shocker-cg gives a group in the very call that makes it, tells ours from
// somebody else's.
func (d Dir) is() (bool, error) {
	var st unix.Stat_t
	err := unix.Lstat(d.Path, &st)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, &os.PathError{Op: "lstat", Path: d.Path, Err: err}
	}
	if d.Ino != 0 {
		return st.Ino == d.Ino, nil
	}
	return st.Mode&unix.S_ISVTX != 0, nil
}

func killAndRemove(dirs []string) error {
	if len(dirs) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
	defer cancel()
	wait := time.Millisecond
	for {
		if err := KillCgroup(ctx, dirs); err != nil {
			return err
		}
		var left []string
		var busy error
		for _, dir := range dirs {
			if err := rmdirTree(dir); errors.Is(err, unix.EBUSY) {
				left, busy = append(left, dir), err
			} else if err != nil {
				return err
			}
		}
		if dirs = left; len(dirs) == 0 {
			return nil
		}
		select { // the kernel tells nobody when the dead have left
		case <-ctx.Done():
			return busy
		case <-time.After(wait):
			wait = min(2*wait, 50*time.Millisecond)
		}
	}
}

// rmdirTree removes a cgroup and those below it, the deepest first.
func rmdirTree(path string) error {
	err := unix.Rmdir(path)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	children, rerr := os.ReadDir(path)
	if rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
		return rerr
	}
	for _, c := range children {
		if c.IsDir() {
			if err := below(path, c.Name(), rmdirTree); err != nil {
				return err
			}
		}
	}
	err = unix.Rmdir(path)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return &os.PathError{Op: "remove cgroup", Path: path, Err: err}
}

// PruneCgroup removes the parents of a group that is not there, as far as
// shocker-cg has made them (they are sticky) and nothing else is in them.
func PruneCgroup(path string) error {
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		var st unix.Stat_t
		err := unix.Lstat(dir, &st)
		if err == nil && (st.Mode&unix.S_ISVTX == 0 || !isCgroup(dir)) {
			return nil
		}
		if err == nil {
			err = unix.Rmdir(dir)
		}
		if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENOTEMPTY) {
			return nil
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return &os.PathError{Op: "remove cgroup", Path: dir, Err: err}
		}
	}
}

func isCgroup(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil &&
		(st.Type == unix.CGROUP2_SUPER_MAGIC || st.Type == unix.CGROUP_SUPER_MAGIC)
}

// KillCgroup kills every process in a cgroup and below it, and returns when
// none is left. dirs are the group's directories: one on cgroup v2, one in each
// hierarchy on v1; one that is not there is empty. Nothing escapes by forking:
// cgroup.kill (kernel 5.14) is atomic, and on v1 the group is frozen first.
func KillCgroup(ctx context.Context, dirs []string) error {
	wait := time.Millisecond
	for {
		left, err := killOnce(dirs)
		if err != nil || !left {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("kill the processes in %s: %w", dirs[0], ctx.Err())
		case <-time.After(wait):
			wait = min(2*wait, 50*time.Millisecond)
		}
	}
}

// killOnce kills what it sees and says whether it saw anything.
func killOnce(dirs []string) (left bool, retErr error) {
	for _, dir := range dirs {
		// Writing to a group that is empty costs less than looking first.
		if err := write(dir, "cgroup.kill", "1"); err == nil {
			continue
		} else if !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		err := write(dir, "freezer.state", "FROZEN")
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, err
		}
		defer func() { retErr = errors.Join(retErr, ThawCgroup(dir)) }()
	}
	for _, dir := range dirs {
		err := WalkCgroup(dir, func(dir string) error {
			some, err := signalMembers(dir, unix.SIGKILL, nil)
			left = left || some
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return left, err
		}
	}
	return left, nil
}

// ThawCgroup thaws a group of v1's freezer and all below it: what is frozen does
// not die, and a container may have frozen groups of its own.
func ThawCgroup(dir string) error {
	err := WalkCgroup(dir, func(dir string) error { return write(dir, "freezer.state", "THAWED") })
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// WalkCgroup calls f on a cgroup and on those below it that are still there.
func WalkCgroup(dir string, f func(dir string) error) error {
	if err := f(dir); err != nil {
		return err
	}
	children, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, c := range children {
		if !c.IsDir() {
			continue
		}
		walk := func(dir string) error { return WalkCgroup(dir, f) }
		if err := below(dir, c.Name(), walk); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// longPath is from where on a path is not made longer, in bytes.
const longPath = unix.PathMax / 2

// below calls f with the path of a directory in dir. Who may make groups can make
// them so deep that no path reaches them; the path of those begins at an open
// descriptor.
func below(dir, name string, f func(path string) error) error {
	if len(dir) < longPath {
		return f(filepath.Join(dir, name))
	}
	var fd int
	err := sys.Retry(func() (err error) {
		fd, err = unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	return f(fmt.Sprintf("/proc/self/fd/%d/%s", fd, name))
}

// write writes to a file of a cgroup.
func write(dir, file, value string) error {
	err := sys.WriteKernel(filepath.Join(dir, file), value)
	if errors.Is(err, unix.ENODEV) {
		return fs.ErrNotExist // the group was removed
	}
	return err
}
