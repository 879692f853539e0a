package spawn

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// clone clones a child that runs steps, and returns its pid or -errno.
//
//go:noescape
func clone(args *cloneArgs, size uintptr, steps *step, head *header) (pid int)

const supported = true

// machine is what ELF calls this architecture: EM_X86_64.
const machine = 62

// code is that which runs steps; handler is the offset of signaled in it.
func code() (begin *byte, size, handler uintptr)

func stub() (text []byte, handler uintptr) {
	begin, size, handler := code()
	return unsafe.Slice(begin, size), handler
}

// prologue is the code before it, in a program that has just been executed: it
// maps the table where it was, and goes on at a step. Without a table, as for
// whoever executes the program once more, that is a segmentation fault.
func prologue(table uint64, size, fd int, first *step, head *header) (b []byte) {
	for _, move := range []struct {
		opcode string // of MOV r64, imm64
		value  uint64
	}{
		{"\x48\xb8", unix.SYS_MMAP},                          // RAX
		{"\x48\xbf", table},                                  // RDI
		{"\x48\xbe", uint64(size)},                           // RSI
		{"\x48\xba", unix.PROT_READ | unix.PROT_WRITE},       // RDX
		{"\x49\xba", unix.MAP_SHARED | unix.MAP_FIXED},       // R10
		{"\x49\xb8", uint64(fd)},                             // R8
		{"\x49\xb9", 0},                                      // R9
		{"\x49\xbc", uint64(uintptr(unsafe.Pointer(first)))}, // R12
		{"\x49\xbd", uint64(uintptr(unsafe.Pointer(head)))},  // R13
	} {
		b = append(b, move.opcode...)
		b = binary.LittleEndian.AppendUint64(b, move.value)
	}
	return append(b, 0x0f, 0x05) // SYSCALL
}
