package group

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Signal sends a signal to every process in the group and below it. It goes by
// pidfd to what is still in the group then: a number that was used again in
// between is nobody's.
func (g *Group) Signal(sig unix.Signal) error {
	pids, err := g.Procs()
	if err != nil {
		return err
	}
	open := make(map[int]int, len(pids))
	defer func() {
		for _, fd := range open {
			_ = unix.Close(fd) // it was only read from
		}
	}()
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("pidfd_open", err)
		}
		open[pid] = fd
	}
	still, err := g.Procs()
	if err != nil {
		return err
	}
	for pid, fd := range open {
		if !slices.Contains(still, pid) {
			continue
		}
		if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("send %s to process %d of %s: %w", unix.SignalName(sig), pid, g.Path, err)
		}
	}
	return nil
}
