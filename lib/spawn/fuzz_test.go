package spawn

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// FuzzTable reads tables as Attach finds them in a file, whatever is in them:
// what is said of a step is an error or words, and never from outside the
// table's memory.
func FuzzTable(f *testing.F) {
	mem, err := unix.Mmap(-1, 0, tableSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		f.Fatal(err)
	}
	head := (*header)(unsafe.Pointer(&mem[0]))
	first := headSize + maxFirst*int(unsafe.Sizeof(step{}))
	for _, current := range []uint64{0, 1, uint64(first), uint64(first) + 96, 1 << 63} {
		for _, steps := range []int32{-1, 0, 2, maxSteps, 1 << 30} {
			f.Add(current, int64(-2), steps, uint64(0), []byte{59: 1})
		}
	}
	f.Fuzz(func(t *testing.T, current uint64, errno int64, steps int32, base uint64, text []byte) {
		if len(text) > 1<<12 {
			return
		}
		clear(mem[:headSize])
		clear(mem[first : first+1<<12])
		head.current, head.errno, head.steps, head.base = current, errno, steps, base
		copy(mem[first:], text)
		p := &Process{table: &Table{mem: mem, head: head}}
		if err := p.failure(); err != nil && err.Error() == "" {
			t.Error("an error without words")
		}
		if n := len(p.Tried()); n > 1<<12/96 {
			t.Errorf("%d programs in %d bytes", n, len(text))
		}
	})
}
