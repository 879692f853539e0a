package untar

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// futimens sets the times of an open file: utimensat(2) with a NULL path,
// which x/sys does not offer.
func futimens(fd int, times *[2]unix.Timespec) error {
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(times)), 0, 0, 0)
	if errno != 0 {
		return os.NewSyscallError("utimensat", errno)
	}
	return nil
}
