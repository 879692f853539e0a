package nofile

import "unsafe"

// getNofile calls prlimit64(0, RLIMIT_NOFILE, NULL, l).
//
//go:noescape
func getNofile(l unsafe.Pointer) (errno int64)
