package undo

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// killTimeout limits how long a killed process may take to leave its cgroup.
const killTimeout = 10 * time.Second

// removeCgroups kills what runs in the given cgroups and removes them with
// the groups that were made below them.
func removeCgroups(dirs []Dir) error {
	ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
	defer cancel()
	var errs []error
	for _, d := range dirs {
		if err := removeCgroup(ctx, d); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func removeCgroup(ctx context.Context, d Dir) error {
	if d.Ino != 0 {
		var st unix.Stat_t
		err := unix.Stat(d.Path, &st)
		if errors.Is(err, unix.ENOENT) || err == nil && st.Ino != d.Ino {
			return nil
		}
		if err != nil {
			return &os.PathError{Op: "stat", Path: d.Path, Err: err}
		}
	}
	wait := time.Millisecond
	for {
		err := rmdirTree(d.Path)
		if err == nil || !errors.Is(err, unix.EBUSY) {
			return err
		}
		if err := killAll(d.Path); err != nil {
			return err
		}
		// The kernel tells nobody when a dead process has left its group.
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
			wait = min(2*wait, 100*time.Millisecond)
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
			if err := rmdirTree(filepath.Join(path, c.Name())); err != nil {
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

// killAll kills every process in the cgroup and below: by cgroup.kill (kernel
// 5.14, cgroup v2), else one by one. A frozen group of v1 is thawed, or it
// could not die.
func killAll(path string) error {
	err := os.WriteFile(filepath.Join(path, "cgroup.kill"), []byte("1"), 0)
	if err == nil || errors.Is(err, fs.ErrNotExist) && !exists(path) {
		return nil
	}
	return filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.IsDir() {
			return err
		}
		return killGroup(p)
	})
}

func killGroup(path string) error {
	procs, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	for line := range strings.Lines(string(procs)) {
		pid, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil || pid <= 1 {
			continue // 0: a process of a pid namespace that we do not see
		}
		if err := killMember(path, pid); err != nil {
			return err
		}
	}
	thaw := filepath.Join(path, "freezer.state")
	if exists(thaw) {
		return os.WriteFile(thaw, []byte("THAWED"), 0)
	}
	return nil
}

// killMember kills a process if it is still in the cgroup after it cannot be
// recycled any more: the pidfd holds its identity, not its number.
func killMember(path string, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	procs, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(procs)) {
		if strings.TrimSpace(line) == strconv.Itoa(pid) {
			err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
			if errors.Is(err, unix.ESRCH) {
				return nil
			}
			return err
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
