package spawn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/sys"
)

// Identity names a process by what is not used again. The pid alone is: it
// goes to another process once this one has been reaped.
type Identity struct {
	Pid int `json:"pid"`
	// Ino is the inode of its pidfd, unique while the machine is up (kernel
	// 6.9, where pidfds have a file system of their own); 0 before that.
	Ino uint64 `json:"ino,omitempty"`
	// Start is the time of its start, in clock ticks since boot
	// (/proc/PID/stat, field 22).
	Start uint64 `json:"start"`
	Boot  string `json:"boot"` // id of the boot
}

const pidfsMagic = 0x50494446 // PID_FS_MAGIC

// Identify returns the identity of the process that has the given pid and
// pidfd.
func Identify(pid int, pidfd *os.File) (Identity, error) {
	id := Identity{Pid: pid}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(pidfd.Fd()), &fs); err != nil {
		return id, os.NewSyscallError("fstatfs", err)
	}
	if fs.Type == pidfsMagic {
		var st unix.Stat_t
		if err := unix.Fstat(int(pidfd.Fd()), &st); err != nil {
			return id, os.NewSyscallError("fstat", err)
		}
		id.Ino = st.Ino
	}
	boot, err := sys.ReadKernel("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return id, err
	}
	id.Boot = strings.TrimSpace(string(boot))
	id.Start, err = startTime(pid)
	return id, err
}

// startTime reads field 22 of /proc/PID/stat; the name in field 2 may hold
// anything, so fields count from its last parenthesis.
func startTime(pid int) (uint64, error) {
	stat, err := sys.ReadKernel("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	f := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(f) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat: too few fields", pid)
	}
	return strconv.ParseUint(string(f[19]), 10, 64)
}

// Open returns a pidfd of the process, or ErrGone if it has ended. A zombie
// has ended.
func (id Identity) Open() (*os.File, error) {
	if id.Pid <= 0 {
		return nil, ErrGone
	}
	fd, err := unix.PidfdOpen(id.Pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil, ErrGone
	}
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	pidfd := os.NewFile(uintptr(fd), "pidfd")
	now, err := Identify(id.Pid, pidfd)
	if err == nil && now != id {
		err = ErrGone
	}
	// What was read by number was of this process if it still is there.
	if err == nil || errors.Is(err, os.ErrNotExist) {
		if sigErr := unix.PidfdSendSignal(fd, 0, nil, 0); sigErr != nil {
			err = ErrGone
		}
	}
	if err == nil && ended(fd) {
		err = ErrGone
	}
	if err != nil {
		pidfd.Close()
		return nil, err
	}
	return pidfd, nil
}

// ended says whether the process has exited: its pidfd is readable then.
func ended(pidfd int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

// WaitEnd waits until a process has ended: its pidfd is readable then. It
// returns the cause of ctx if that is done before.
func WaitEnd(ctx context.Context, pidfd *os.File) error {
	for {
		fds := []unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 100) // ms; then ctx is looked at
		if n > 0 {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("poll", err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}
