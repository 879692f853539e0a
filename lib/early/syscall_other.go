//go:build !amd64

package early

func syscall4(_, _, _, _, _ uintptr) int64 { return -1 }

func program() (begin, end uintptr) { return 0, 0 }
