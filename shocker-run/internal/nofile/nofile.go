// Package nofile remembers the limit on open files that this process was
// started with. Go raises the soft limit when package syscall is initialised,
// and puts it back only in children of os/exec.
//
// This package imports nothing, so that it is initialised before syscall is:
// packages are in the order of their paths as far as imports leave a choice
// (Go specification, "Program initialization"). TestInherited guards that.
package nofile

import "unsafe"

var inherited = read()

type rlimit struct{ soft, hard uint64 }

// Inherited returns the soft and the hard limit; 0, 0 where they could not be
// read.
func Inherited() (soft, hard uint64) { return inherited.soft, inherited.hard }

func read() (l rlimit) {
	if !prlimit(&l) {
		return rlimit{}
	}
	return l
}

// prlimit reads RLIMIT_NOFILE (prlimit(2)).
func prlimit(l *rlimit) bool { return getNofile(unsafe.Pointer(l)) == 0 }
