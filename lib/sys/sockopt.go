package sys

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Getsockopt reads an option that is a structure of len(data) bytes, part of
// which can be the question (getsockopt(2)).
func Getsockopt(fd, level, option int, data []byte) error {
	err := Retry(func() error {
		size := uint32(len(data))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
			uintptr(unsafe.Pointer(unsafe.SliceData(data))), uintptr(unsafe.Pointer(&size)), 0)
		if errno != 0 {
			return errno
		}
		return nil
	})
	return os.NewSyscallError("getsockopt", err)
}
