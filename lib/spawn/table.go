package spawn

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// step is one system call of the child, as the stub reads it.
type step struct {
	nr       uint64
	args     [6]uint64
	indirect uint64 // bit n: args[n] is the address of the value
	result   int64
	ignore   int64 // -errno that is no failure
	flags    uint64
	name     uint64 // address of what is tried on what; 0: only our process knows
}

// Flags of a step, known to the stub.
const (
	stepClone = 1 << 0 // in the caller, exit; in the new child, go on
	stepData  = 1 << 1 // a result of 0 is the end of a file, and a failure

	stepMayFail = 1 << 2 // no errno is a failure
	stepHold    = 1 << 3 // see NewTableIn; nothing to the stub
)

// header is what the stub and the parent tell each other.
type header struct {
	current uint64 // address of the step that runs
	errno   int64  // -errno of the step that failed
	allSigs uint64
	oldSigs uint64
	noSigs  uint64
	pid     int32 // of the process that goes on, by CLONE_PARENT_SETTID
	steps   int32 // how many there are
	scratch uint64
	base    uint64 // address of the header in the child
}

// The stub knows these numbers.
var (
	_ [0]struct{} = [unsafe.Offsetof(header{}.oldSigs) - 24]struct{}{}
	_ [0]struct{} = [unsafe.Offsetof(step{}.flags) - 80]struct{}{}
	_ [0]struct{} = [unsafe.Sizeof(step{}) - 96]struct{}{}
)

// Room of a table: steps of 96 bytes each, then strings and structures. Only
// what is used of it becomes memory. An environment alone may have 6 MB
// (execve(2): three quarters of the stack limit).
const (
	maxFirst  = 128 // steps that Start puts before the others
	maxSteps  = 16 << 10
	tableSize = 16 << 20
	chunk     = 64 << 10 // see reserve
	headSize  = 64
)

// Ref is the address of something in the table's memory.
type Ref uintptr

// Step is one step of a table.
type Step struct {
	*step
	name string
}

// Ignore lets the step fail with one errno.
func (s *Step) Ignore(errno unix.Errno) *Step {
	s.ignore = -int64(errno)
	return s
}

// IgnoreAny lets the step fail: who wants to know reads its Result.
func (s *Step) IgnoreAny() *Step {
	s.flags |= stepMayFail
	return s
}

// Result is what the system call returned, -errno if it failed, once the child
// is past the step.
func (s *Step) Result() int { return int(s.result) }

// Table is what a child does, step by step.
type Table struct {
	mem   []byte
	head  *header
	steps []*Step
	data  int // offset of the free room
	keep  []*os.File
	err   error

	status, release pipe
	hold            *os.File   // see NewTableIn
	ending          *sigaction // see EndOnSignals; nil: it does not
	file            *os.File   // whose memory it is
	full            bool       // its file system can be full: see reserve
	reserved        [tableSize / chunk]bool
	stub            *os.File // see shed.go
}

type pipe struct{ r, w *os.File }

// NewTable makes an empty table. It must be closed, or started and its
// Process closed.
func NewTable() (*Table, error) {
	fd, err := unix.MemfdCreate("table", unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before kernel 6.3
		fd, err = unix.MemfdCreate("table", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	t, err := newTable(os.NewFile(uintptr(fd), "table"), false)
	if err != nil {
		return nil, err
	}
	if t.status, err = newPipe(); err == nil {
		t.release, err = newPipe()
	}
	if err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// newTable maps the memory of a table, that of an empty file, which is closed
// with it; full says that there may be no room for it.
func newTable(f *os.File, full bool) (_ *Table, retErr error) {
	defer func() {
		if retErr != nil {
			f.Close()
		}
	}()
	if !supported {
		return nil, ErrUnsupported
	}
	if err := f.Truncate(tableSize); err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, tableSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	t := &Table{
		mem:  mem,
		head: (*header)(unsafe.Pointer(&mem[0])),
		data: headSize + (maxFirst+maxSteps)*int(unsafe.Sizeof(step{})),
		file: f,
		full: full,
	}
	if !t.reserve(0, headSize) {
		return nil, errors.Join(t.err, unix.Munmap(mem))
	}
	t.head.allSigs = ^uint64(0)
	t.head.base = uint64(uintptr(unsafe.Pointer(t.head)))
	return t, nil
}

func newPipe() (p pipe, err error) {
	p.r, p.w, err = os.Pipe()
	return p, err
}

// Close frees the table. A child that waits for us exits.
func (t *Table) Close() {
	for _, f := range []*os.File{t.status.r, t.status.w, t.release.r, t.release.w, t.hold, t.file, t.stub} {
		if f != nil {
			f.Close()
		}
	}
	if t.mem != nil {
		// The mapping cannot be busy, and its address is right.
		_ = unix.Munmap(t.mem)
		t.mem = nil
	}
}

// alloc takes n bytes of the table's memory, aligned to 8.
func (t *Table) alloc(n int) []byte {
	if t.data+n > len(t.mem) {
		t.err = ErrTableFull
		return make([]byte, n) // Start reports it
	}
	if !t.reserve(t.data, n) {
		return make([]byte, n) // likewise
	}
	b := t.mem[t.data : t.data+n : t.data+n]
	t.data += (n + 7) &^ 7
	return b
}

// reserve takes room for n bytes at an offset from the file system of the table.
// Where there is none, to write to the memory would be a SIGBUS, for us or for the
// child.
func (t *Table) reserve(at, n int) bool {
	for i := at / chunk; t.full && i*chunk < at+n; i++ {
		if t.reserved[i] {
			continue
		}
		err := unix.Fallocate(int(t.file.Fd()), 0, int64(i*chunk), chunk)
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) { // a network's file system may not know it
			t.err = &os.PathError{Op: "make room in", Path: t.file.Name(), Err: err}
			return false
		}
		t.reserved[i] = true
	}
	return true
}

// Bytes puts data into the table's memory.
func (t *Table) Bytes(data []byte) Ref {
	b := t.alloc(max(len(data), 1))
	copy(b, data)
	return Ref(unsafe.Pointer(&b[0]))
}

// String puts a string with its NUL into the table's memory.
func (t *Table) String(s string) Ref {
	if strings.IndexByte(s, 0) >= 0 {
		t.err = fmt.Errorf("%w: %q", ErrNUL, s) // the kernel would see less of it
	}
	return t.Bytes(append([]byte(s), 0))
}

// Strings puts a list of strings, ended by NULL, into the table's memory, as
// execve(2) takes its arguments.
func (t *Table) Strings(list []string) Ref {
	all, _ := t.StringRefs(list)
	return all
}

// StringRefs is Strings, and tells where each string is, for Process.Fill.
func (t *Table) StringRefs(list []string) (all Ref, each []Ref) {
	b := t.alloc(8 * (len(list) + 1))
	for i, s := range list {
		each = append(each, t.String(s))
		*(*uintptr)(unsafe.Pointer(&b[8*i])) = uintptr(each[i])
	}
	return Ref(unsafe.Pointer(&b[0])), each
}

// Struct puts a copy of *v, which must hold no Go pointers, into the table's
// memory.
func Struct[T any](t *Table, v *T) Ref {
	return t.Bytes(unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v)))
}

// Out makes room in the table's memory for what a system call puts there.
func Out[T any](t *Table) (*T, Ref) {
	var v T
	b := t.alloc(int(unsafe.Sizeof(v)))
	return (*T)(unsafe.Pointer(&b[0])), Ref(unsafe.Pointer(&b[0]))
}

// Call adds a system call; name says what is tried on what. An argument is an
// integer, a string, bytes, a Ref, an open file, whose descriptor it is, or an
// earlier Step, whose result it is.
func (t *Table) Call(name string, nr uintptr, args ...any) *Step {
	s := t.add(name)
	s.nr = uint64(nr)
	for i, arg := range args {
		switch v := arg.(type) {
		case int:
			s.args[i] = uint64(v)
		case int32:
			s.args[i] = uint64(v)
		case int64:
			s.args[i] = uint64(v)
		case uint:
			s.args[i] = uint64(v)
		case uint32:
			s.args[i] = uint64(v)
		case uint64:
			s.args[i] = v
		case uintptr:
			s.args[i] = uint64(v)
		case Ref:
			s.args[i] = uint64(v)
		case string:
			s.args[i] = uint64(t.String(v))
		case []byte:
			s.args[i] = uint64(t.Bytes(v))
		case *os.File:
			s.args[i] = uint64(v.Fd())
			t.Keep(v)
		case *Step:
			s.args[i] = uint64(uintptr(unsafe.Pointer(&v.result)))
			s.indirect |= 1 << i
		default:
			t.err = fmt.Errorf("spawn: %s: argument %d is a %T", name, i, arg)
		}
	}
	return s
}

func (t *Table) add(name string) *Step {
	if len(t.steps) == maxSteps {
		t.err = ErrTableFull
		return &Step{&step{}, name}
	}
	if !t.reserve(headSize+(maxFirst+len(t.steps))*int(unsafe.Sizeof(step{})), int(unsafe.Sizeof(step{}))) {
		return &Step{&step{}, name}
	}
	s := &Step{t.at(maxFirst + len(t.steps)), name}
	t.steps = append(t.steps, s)
	t.head.steps = int32(len(t.steps))
	if t.hold != nil {
		s.step.name = uint64(t.String(name))
	}
	return s
}

func (t *Table) at(n int) *step {
	return (*step)(unsafe.Pointer(&t.mem[headSize+n*int(unsafe.Sizeof(step{}))]))
}

// Keep lets the child have a file's descriptor that stands in a structure.
// Those of Call's arguments it has anyway, and no others but stdio: the child
// closes all that it has inherited and that its table does not name.
func (t *Table) Keep(f *os.File) { t.keep = append(t.keep, f) }

// Clone adds the making of a new child, with CLONE_ flags for its namespaces.
// The new child goes on with the next step and is a child of our process; the
// one before it exits.
func (t *Table) Clone(name string, flags uint64) *Step {
	args := cloneArgs{
		flags:     flags | unix.CLONE_PARENT | unix.CLONE_PARENT_SETTID | unix.CLONE_CLEAR_SIGHAND,
		parentTID: uint64(uintptr(unsafe.Pointer(&t.head.pid))),
	}
	s := t.Call(name, unix.SYS_CLONE3, Struct(t, &args), unsafe.Sizeof(args))
	s.flags = stepClone
	return s
}

// Notify adds the telling that the child has come this far.
func (t *Table) Notify(name string) *Step {
	return t.Call(name, unix.SYS_WRITE, t.status.w, []byte{'n'}, 1)
}

// Wait adds the waiting for Release.
func (t *Table) Wait(name string) *Step {
	s := t.Call(name, unix.SYS_READ, t.release.r, Ref(unsafe.Pointer(&t.head.scratch)), 1)
	s.flags = stepData
	return s
}

// Reserve keeps the table's own descriptors out of the numbers below first,
// which the program is to get.
func (t *Table) Reserve(first int) error {
	for _, f := range []**os.File{&t.status.w, &t.release.r, &t.hold} {
		if *f == nil || int((*f).Fd()) >= first {
			continue
		}
		fd, err := unix.FcntlInt((*f).Fd(), unix.F_DUPFD_CLOEXEC, first)
		if err != nil {
			return os.NewSyscallError("dup", err)
		}
		(*f).Close()
		*f = os.NewFile(uintptr(fd), "|")
	}
	return nil
}

// Descriptors adds that the program gets files, or what steps have opened, as
// its descriptors from first up, whatever numbers they have now. In the place of
// a nil it gets none. Reserve has kept the table's own out of the way. What stays
// above is for CloseFrom.
func (t *Table) Descriptors(first int, files ...any) {
	high := make([]*Step, len(files))
	for i, f := range files {
		if f == nil {
			continue
		}
		// One may have a number that another is to get.
		high[i] = t.Call(fmt.Sprintf("move descriptor %d", first+i), unix.SYS_FCNTL, f, unix.F_DUPFD_CLOEXEC, first+len(files))
	}
	for i, s := range high {
		if s == nil {
			t.Call(fmt.Sprintf("close descriptor %d", first+i), unix.SYS_CLOSE_RANGE, first+i, first+i, 0)
			continue
		}
		t.Call(fmt.Sprintf("set descriptor %d", first+i), unix.SYS_DUP3, s, first+i, 0)
	}
}

// CloseFrom adds the closing of all descriptors from first up, also those that
// steps have opened, but for the pipes between the child and us, which close
// when it executes its program.
func (t *Table) CloseFrom(first int) {
	keep := []int{first - 1, int(t.status.w.Fd()), int(t.release.r.Fd()), math.MaxUint32 + 1}
	if t.hold != nil {
		keep = append(keep, int(t.hold.Fd()))
	}
	slices.Sort(keep)
	for i, fd := range keep[1:] {
		if from := max(first, keep[i]+1); from < fd {
			t.Call("close descriptors", unix.SYS_CLOSE_RANGE, from, fd-1, 0)
		}
	}
}

// Signals adds that signals are as a program expects them: not blocked, which
// they are in the child, and none ignored. What our caller ignored, as shells do
// for a command in the background, stays so across clone3(2) and execve(2).
func (t *Table) Signals() {
	action := t.Bytes(make([]byte, 32)) // struct sigaction: SIG_DFL, no flags
	for sig := 1; sig <= 64; sig++ {
		if sig != int(unix.SIGKILL) && sig != int(unix.SIGSTOP) {
			t.Call("reset signals", unix.SYS_RT_SIGACTION, sig, action, 0, 8)
		}
	}
	t.Call("unblock signals", unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK,
		Ref(unsafe.Pointer(&t.head.noSigs)), 0, 8)
}

// Exec adds the end: signals as a program expects them, and the program at
// path.
func (t *Table) Exec(path string, args, env []string) *Step {
	t.Signals()
	return t.Call("execute "+path, unix.SYS_EXECVE, path, t.Strings(args), t.Strings(env))
}
