// Package early does what has to be done before other packages are
// initialised.
//
// It imports nothing, so that its turn comes before package syscall's: packages
// are in the order of their paths as far as imports leave a choice (Go
// specification, "Program initialization"). TestNofile guards that.
package early

import "unsafe"

// Go raises the soft limit on open files when package syscall is initialised,
// and puts it back only in children of os/exec.
var limits = nofile()

// A start writes to some 150 pages of the heap for the first time, one page
// fault each. Where a virtual machine's kernel has to ask its host for them, a
// fault takes 20 µs and more, and they are a third of the start.
var _ = populate(1 << 20)

type rlimit struct{ soft, hard uint64 }

// Nofile returns the soft and the hard limit on open files that this process
// was started with; 0, 0 where they could not be read.
func Nofile() (soft, hard uint64) { return limits.soft, limits.hard }

func nofile() (l rlimit) {
	const prlimit64 = 302
	if syscall4(prlimit64, 0, 7, 0, uintptr(unsafe.Pointer(&l))) != 0 { // RLIMIT_NOFILE
		return rlimit{}
	}
	return l
}

var first *[64]byte

// populate brings in the next so many bytes of the heap at once, where the
// kernel can: MADV_POPULATE_WRITE came with 5.14 (madvise(2)).
func populate(size uintptr) bool {
	const madvise, populateWrite = 28, 23
	const page, grown = 4 << 10, 4 << 20 // the heap grows by 4 MB
	first = new([64]byte)
	begin := uintptr(unsafe.Pointer(first)) &^ (page - 1)
	end := begin&^(grown-1) + grown
	return syscall4(madvise, begin, min(size, end-begin), populateWrite, 0) == 0
}
