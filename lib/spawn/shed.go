package spawn

import (
	"errors"
	"fmt"
	"math"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A child is a copy of our process, and /proc/PID/exe of it is our program, on
// the host. Where somebody inside can be its owner outside, whoever brings it to
// execute that once more from within the container (an image whose program begins
// with "#!/proc/self/exe") holds a descriptor of it, and can write to it as soon
// as nobody executes it any more (CVE-2019-5736). So the child first executes a
// program that is nothing but the stub, in a sealed file that has no name:
//
//	child of P                            the stub's program
//	close descriptors,
//	keep those that the table names
//	execveat(the stub's program) ───────▶ map the table where it was
//	                                      undumpable, descriptors CLOEXEC again
//	                                      the steps of the table
//
// It does so before it joins any namespace. Our memory goes with it as well; so
// this child has no copy of it, but uses it until then while we wait, as with
// vfork(2). undumpable would be for us as well.

// shed adds the steps of the left column to the end of the table, puts those of
// the right one before its first step, and returns where the child begins.
func (t *Table) shed() (*step, error) {
	first := t.before([]step{
		undumpable,
		{nr: unix.SYS_CLOSE_RANGE, args: [6]uint64{3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC}},
	})
	program, err := t.program(first)
	if err != nil {
		return nil, fmt.Errorf("make the stub's program: %w", err)
	}
	t.stub = program
	begin := t.at(maxFirst + len(t.steps))
	t.Keep(t.file)
	t.Keep(program)
	for _, s := range t.closeOthers() {
		t.Call("leave what is not the child's", uintptr(s.nr), s.args[0], s.args[1])
	}
	for _, f := range append(t.keep, t.status.w, t.release.r) {
		t.Call("keep descriptors", unix.SYS_FCNTL, f, unix.F_SETFD, 0)
	}
	t.Call("execute the stub", unix.SYS_EXECVEAT, program, "", t.Strings([]string{"shocker"}), t.Strings(nil), unix.AT_EMPTY_PATH)
	return begin, t.err
}

// codeAt is the address of the stub's program. It needs no stack and nothing
// else that the kernel maps, so the table may cover that.
const codeAt = 0x200000

// image is the head of an ELF file with one segment (elf(5)): Elf64_Ehdr and
// Elf64_Phdr.
type image struct {
	ident                      [16]byte
	kind, machine              uint16
	version                    uint32
	entry, phoff, shoff        uint64
	flags                      uint32
	ehsize, phentsize, phnum   uint16
	shentsize, shnum, shstrndx uint16
	ptype, pflags              uint32
	offset, vaddr, paddr       uint64
	filesz, memsz, align       uint64
}

// program makes the stub's program, which goes on at the given step.
func (t *Table) program(first *step) (_ *os.File, retErr error) {
	const head = unsafe.Sizeof(image{})
	text, handler := stub()
	code := prologue(t.head.base, tableSize, int(t.file.Fd()), first, t.head)
	t.handleAt(codeAt + head + uintptr(len(code)) + handler)
	code = append(code, text...)
	size := uint64(head) + uint64(len(code))
	i := image{
		ident: [16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, // 64 bits, little-endian
		kind:  2, machine: machine, version: 1,        // ET_EXEC
		entry: codeAt + uint64(head), phoff: 64, ehsize: 64, phentsize: 56, phnum: 1,
		ptype: 1, pflags: 5, // PT_LOAD, readable and executable
		vaddr: codeAt, paddr: codeAt, filesz: size, memsz: size, align: 4096,
	}
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("stub", flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before kernel 6.3
		fd, err = unix.MemfdCreate("stub", flags)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "stub")
	if _, err := f.Write(append(unsafe.Slice((*byte)(unsafe.Pointer(&i)), head), code...)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return nil, errors.Join(os.NewSyscallError("fcntl", err), f.Close())
	}
	return f, nil
}
