package spawn

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A held child outlives the process that has started it, until another one
// lets it go on. What both have to know lies in a directory:
//
//	DIR/table    the table's memory
//	DIR/hold     FIFO: the child reads a byte from it, and goes on
//	DIR/status   FIFO: it ends when the child has executed its program or died
//
//	create (P)                     child                      start (P2)
//	NewTableIn, ..., Start ─────▶
//	Notified    ◀───────────────   Notify
//	Close, exit                    Hold
//	                                      ◀──── "g" ────────  Attach, Release
//	                               Exec   ───── end of file ▶ Started
const (
	tableFile  = "table"
	holdFile   = "hold"
	statusFile = "status"
)

// NewTableIn makes an empty table whose child can be held. The directory should
// be on a tmpfs, and pass nobody but root.
func NewTableIn(dir string) (_ *Table, retErr error) {
	f, err := os.OpenFile(filepath.Join(dir, tableFile), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	t, err := newTable(f, true)
	if err != nil {
		return nil, err
	}
	defer func() {
		if retErr != nil {
			t.Close()
		}
	}()
	for _, name := range []string{holdFile, statusFile} {
		if err := unix.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
			return nil, &os.PathError{Op: "make fifo", Path: filepath.Join(dir, name), Err: err}
		}
	}
	// The child is a writer of it itself: it must not see an end before
	// somebody has come to let it go on.
	if t.hold, err = os.OpenFile(filepath.Join(dir, holdFile), os.O_RDWR, 0); err != nil {
		return nil, err
	}
	if t.status.r, err = os.OpenFile(filepath.Join(dir, statusFile), os.O_RDONLY|unix.O_NONBLOCK, 0); err != nil {
		return nil, err
	}
	if t.status.w, err = os.OpenFile(filepath.Join(dir, statusFile), os.O_WRONLY, 0); err != nil {
		return nil, err
	}
	t.release, err = newPipe()
	return t, err
}

// sigaction is struct sigaction of the kernel (rt_sigaction(2)).
type sigaction struct{ handler, flags, restorer, mask uint64 }

// EndOnSignals adds that a signal which asks a program to end does so while the
// child is held, with status 128 and its number. The first process of a pid
// namespace gets no others than those that it has a handler for
// (pid_namespaces(7)).
func (t *Table) EndOnSignals() {
	const (
		onStack, restorer = 0x08000000, 0x04000000 // SA_, of signal.h; one that never returns
		stack             = 16 << 10
	)
	alt := struct {
		sp          uint64
		flags, size uint64
	}{sp: uint64(uintptr(unsafe.Pointer(&t.alloc(stack)[0]))), size: stack}
	t.Call("set a stack for signals", unix.SYS_SIGALTSTACK, Struct(t, &alt), 0)
	t.ending = (*sigaction)(unsafe.Pointer(&t.alloc(int(unsafe.Sizeof(sigaction{})))[0]))
	*t.ending = sigaction{flags: onStack | restorer, mask: ^uint64(0)}
	for _, sig := range ending {
		t.Call("handle "+sig.String(), unix.SYS_RT_SIGACTION, int(sig), Ref(unsafe.Pointer(t.ending)), 0, 8)
	}
}

// ending are the signals by which a program is asked to end.
var ending = []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT}

// handleAt says where the child's handler of signals is.
func (t *Table) handleAt(address uintptr) {
	if t.ending != nil {
		t.ending.handler = uint64(address)
	}
}

// Hold adds the waiting for Release by a process that has attached itself; in a
// table that is not in a directory, for Release by our own.
func (t *Table) Hold(name string) *Step {
	if t.ending != nil {
		// A seccomp filter may be in force that forbids it.
		blocked := ^uint64(0)
		for _, sig := range ending {
			blocked &^= 1 << (sig - 1)
		}
		t.Call("let signals end it", unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, Struct(t, &blocked), 0, 8).IgnoreAny()
	}
	s := t.Wait(name)
	if t.hold != nil {
		s.flags |= stepHold
		s.args[0] = uint64(t.hold.Fd())
		t.Keep(t.hold)
	}
	return s
}

// Attach returns the child that is held in dir, and ErrNotHeld if none is.
// pidfd is its own, and closed with it.
func Attach(dir string, pidfd *os.File) (_ *Process, retErr error) {
	f, err := os.OpenFile(filepath.Join(dir, tableFile), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotHeld
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.Size() != tableSize {
		return nil, fmt.Errorf("%s: %w: not a whole table", f.Name(), ErrNotHeld)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, tableSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, &os.PathError{Op: "map", Path: f.Name(), Err: err}
	}
	t := &Table{mem: mem, head: (*header)(unsafe.Pointer(&mem[0]))}
	defer func() {
		if retErr != nil {
			t.Close()
		}
	}()
	if !t.held() {
		return nil, ErrNotHeld
	}
	t.status.r, err = os.OpenFile(filepath.Join(dir, statusFile), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err == nil {
		t.release.w, err = os.OpenFile(filepath.Join(dir, holdFile), os.O_WRONLY|unix.O_NONBLOCK, 0)
	}
	if errors.Is(err, unix.ENXIO) || errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotHeld // it is gone, or cannot be let go any more
	}
	return &Process{table: t, pidfd: pidfd, attached: true}, err
}

// Unhold takes away what a held child has in dir, once it has been let go or
// has died.
func Unhold(dir string) error {
	var errs []error
	for _, name := range []string{tableFile, holdFile, statusFile} {
		if err := os.Remove(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Held says whether a child is held in dir.
func Held(dir string) (bool, error) {
	p, err := Attach(dir, nil)
	if errors.Is(err, ErrNotHeld) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	p.table.Close()
	return true, nil
}

// held says whether the child waits to be let go, or will in a moment: it has
// told its creator so in the step before.
func (t *Table) held() bool {
	n, ok := t.index()
	if !ok || t.head.errno != 0 {
		return false
	}
	for ; n < t.count(); n++ {
		if s := t.at(maxFirst + n); s.flags&stepHold != 0 {
			return s.result == 0
		}
	}
	return false
}

// index is the number of the step that runs, or has failed.
func (t *Table) index() (n int, ok bool) {
	at := (t.head.current-t.head.base-headSize)/uint64(unsafe.Sizeof(step{})) - maxFirst
	return int(at), at < uint64(t.count())
}

// count is how many steps there are; of a table that another process has
// written, as many as there can be.
func (t *Table) count() int { return min(max(int(t.head.steps), 0), maxSteps) }

// current is the step that runs, or has failed; nil before the first.
func (t *Table) current() *Step {
	n, ok := t.index()
	if !ok {
		return nil
	}
	s := t.at(maxFirst + n)
	if n < len(t.steps) {
		return t.steps[n]
	}
	name := "?"
	if at := s.name - t.head.base; at < uint64(len(t.mem)) {
		text, _, _ := bytes.Cut(t.mem[at:], []byte{0})
		name = string(text)
	}
	return &Step{s, name}
}
