package early

// syscall4 makes a system call and returns what the kernel does: an error is
// negative.
func syscall4(nr, a, b, c, d uintptr) int64

// program returns where the program's code begins and its constants end, by the
// names that the linker gives to these places.
func program() (begin, end uintptr)
