package early

// syscall4 makes a system call and returns what the kernel does: an error is
// negative.
func syscall4(nr, a, b, c, d uintptr) int64
