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

// A start writes to some 200 pages of the heap for the first time, and runs
// through the whole program, with a page fault for each 16 pages of it. Where a
// virtual machine's kernel has to ask its host, a fault takes 20 µs and more,
// and they are a third of the start.
var (
	_ = populate(1536 << 10)
	_ = mapProgram()
)

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

const (
	madvise = 28 // its number
	page    = 4 << 10
)

var first *[64]byte

// populate brings in the next so many bytes of the heap at once, where the
// kernel can: MADV_POPULATE_WRITE came with 5.14 (madvise(2)).
func populate(size uintptr) bool {
	const populateWrite = 23
	const grown = 4 << 20 // what the heap grows by
	first = new([64]byte)
	begin := uintptr(unsafe.Pointer(first)) &^ (page - 1)
	end := begin&^(grown-1) + grown
	return syscall4(madvise, begin, min(size, end-begin), populateWrite, 0) == 0
}

// mapProgram maps the pages of the program that are only read, as far as they
// are in memory: MADV_POPULATE_READ came with 5.14 as well.
func mapProgram() bool {
	const populateRead = 22
	begin, end := program()
	begin &^= page - 1
	return syscall4(madvise, begin, end-begin, populateRead, 0) == 0
}
