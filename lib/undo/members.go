package undo

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// batch limits how many processes are held by a descriptor at once.
const batch = 512

// killMembers kills the processes in one cgroup and says whether there were
// any. A pid is only a number, which may be another process by the time it is
// used: so each is held by a pidfd first, and killed if it is still in the
// group after that.
func killMembers(dir string) (bool, error) {
	pids, err := members(dir)
	if err != nil {
		return false, err
	}
	for part := range slices.Chunk(pids, batch) {
		if err := killHeld(dir, part); err != nil {
			return true, err
		}
	}
	return len(pids) > 0, nil
}

func killHeld(dir string, pids []int) (retErr error) {
	held := make(map[int]int, len(pids))
	defer func() {
		for _, fd := range held {
			retErr = errors.Join(retErr, unix.Close(fd))
		}
	}()
	for _, pid := range pids {
		if pid <= 1 {
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
	still, err := members(dir)
	if err != nil {
		return err
	}
	for _, pid := range still {
		fd, ok := held[pid]
		if !ok {
			continue
		}
		err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill process %d in %s: %w", pid, dir, err)
		}
	}
	return nil
}

// members reads cgroup.procs.
func members(dir string) ([]int, error) {
	path := filepath.Join(dir, "cgroup.procs")
	text, err := os.ReadFile(path)
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
