package undo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/sys"
)

// batch limits how many processes are held by a descriptor at once.
const batch = 512

// SignalCgroup sends a signal to every process in the given cgroups and below
// them, to each once, however many of the groups it is in.
func SignalCgroup(dirs []string, sig unix.Signal) error {
	done := make(map[int]bool)
	for _, dir := range dirs {
		err := WalkCgroup(dir, func(dir string) error {
			_, err := signalMembers(dir, sig, done)
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// signalMembers signals the processes in one cgroup, but for those that are
// done, and says whether there were any. A pid is only a number, which may be
// another process by the time it is used: so each is held by a pidfd first, and
// gets the signal if it is still in the group after that.
func signalMembers(dir string, sig unix.Signal, done map[int]bool) (bool, error) {
	pids, err := CgroupMembers(dir)
	if err != nil {
		return false, err
	}
	for part := range slices.Chunk(pids, batch) {
		if err := signalHeld(dir, part, sig, done); err != nil {
			return true, err
		}
	}
	return len(pids) > 0, nil
}

func signalHeld(dir string, pids []int, sig unix.Signal, done map[int]bool) (retErr error) {
	held := make(map[int]int, len(pids))
	defer func() {
		for _, fd := range held {
			retErr = errors.Join(retErr, unix.Close(fd))
		}
	}()
	for _, pid := range pids {
		if pid <= 1 || done[pid] {
			continue // 0 is one out of sight of our pid namespace
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return fmt.Errorf("pidfd of process %d: %w", pid, err)
		}
		held[pid] = fd
	}
	still, err := CgroupMembers(dir)
	if err != nil {
		return err
	}
	for _, pid := range still {
		fd, ok := held[pid]
		if !ok {
			continue
		}
		err := unix.PidfdSendSignal(fd, sig, nil, 0)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("send %s to process %d in %s: %w", unix.SignalName(sig), pid, dir, err)
		}
		if done != nil {
			done[pid] = true
		}
	}
	return nil
}

// CgroupMembers reads cgroup.procs of one directory; a process out of sight of
// our pid namespace is 0.
func CgroupMembers(dir string) ([]int, error) {
	path := filepath.Join(dir, "cgroup.procs")
	text, err := sys.ReadKernel(path)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil // a threaded group: its processes are counted above it
	}
	if errors.Is(err, unix.ENODEV) {
		err = &os.PathError{Op: "read", Path: path, Err: os.ErrNotExist}
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	for line := range strings.Lines(string(text)) {
		pid, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}
