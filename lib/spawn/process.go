package spawn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/sys"
)

// cloneArgs is struct clone_args of clone3(2).
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal uint64
	stack, stackSize, tls, setTID, setTIDSize     uint64
	cgroup                                        uint64
}

// Process is a started child.
type Process struct {
	table *Table
	first int // pid of the process that Start cloned; 0: reaped
	pidfd *os.File
	// attached is a child of another process than ours: see Attach.
	attached bool
}

// Options of Start.
type Options struct {
	Flags  uint64   // CLONE_ flags for the first process's namespaces
	Cgroup *os.File // directory on cgroup v2 to be born in
	// Shed lets the child get rid of our program first: see shed.go. It
	// cannot be born in a user namespace then, whose root it is not yet.
	Shed bool
}

// Start clones the child, which begins to run the table.
func (t *Table) Start(o Options) (*Process, error) {
	if t.err != nil {
		return nil, t.err
	}
	// The table ends: a step beyond the last would be number 0, read(2).
	t.Call("end", unix.SYS_EXIT_GROUP, 0)
	shared := (*cloneArgs)(unsafe.Pointer(&t.alloc(int(unsafe.Sizeof(cloneArgs{})))[0]))
	first, err := t.opening(o.Shed)
	if err != nil {
		return nil, err
	}
	args := cloneArgs{
		flags:      o.Flags | unix.CLONE_CLEAR_SIGHAND | unix.CLONE_PARENT_SETTID,
		parentTID:  uint64(uintptr(unsafe.Pointer(&t.head.pid))),
		exitSignal: uint64(unix.SIGCHLD),
	}
	if o.Shed {
		args.flags |= unix.CLONE_VM | unix.CLONE_VFORK
	}
	if o.Cgroup != nil {
		args.flags |= unix.CLONE_INTO_CGROUP
		args.cgroup = uint64(o.Cgroup.Fd())
	}
	*shared = args
	t.adviseHeap(unix.MADV_DONTFORK)
	pid := clone(shared, unsafe.Sizeof(args), first, t.head)
	t.adviseHeap(unix.MADV_DOFORK)
	runtime.KeepAlive(t.keep)
	if pid < 0 {
		return nil, &StepError{"clone the first process", unix.Errno(-pid)}
	}
	// Only the child has these now: its death is the end of file.
	err = errors.Join(t.status.w.Close(), t.release.r.Close())
	t.status.w, t.release.r = nil, nil
	return &Process{table: t, first: pid}, err
}

// heapArena is the unit in which Go maps its heap, in bytes (64-bit Linux).
const heapArena = 64 << 20

// adviseHeap tells the kernel whether a child gets a copy of the first arena of
// Go's heap. Ours does not read it, and the copying of each page that we write
// to while the child lives costs more than all its steps. On an error there is a
// copy, as without it.
func (t *Table) adviseHeap(advice uintptr) {
	at := uintptr(unsafe.Pointer(t)) &^ (heapArena - 1)
	_, _, _ = unix.RawSyscall(unix.SYS_MADVISE, at, heapArena, advice)
}

// opening puts what every child does first before the first step of its table,
// and returns where it begins.
func (t *Table) opening(shed bool) (*step, error) {
	if shed {
		return t.shed()
	}
	text, handler := stub()
	t.handleAt(uintptr(unsafe.Pointer(&text[0])) + handler)
	first := append([]step{undumpable}, t.closeOthers()...)
	return t.before(first), t.err
}

// undumpable keeps everybody but the host's root from the child's memory,
// descriptors and program, also who has all power in the container that it
// enters (prctl(2); CVE-2016-9962, CVE-2019-5736). It ends with execve(2).
var undumpable = step{nr: unix.SYS_PRCTL, args: [6]uint64{unix.PR_SET_DUMPABLE, 0}}

// before puts steps before the first one.
func (t *Table) before(steps []step) *step {
	if len(steps) > maxFirst {
		t.err = ErrTableFull
		return nil
	}
	for i, s := range steps {
		*t.at(maxFirst - len(steps) + i) = s
	}
	return t.at(maxFirst - len(steps))
}

// closeOthers is the closing of all descriptors that the table does not name.
// Another child's end of a pipe, inherited by this one, would keep that one
// waiting.
func (t *Table) closeOthers() (steps []step) {
	named := []int{2} // and what is below
	for _, f := range append(t.keep, t.status.w, t.release.r) {
		named = append(named, int(f.Fd()))
	}
	slices.Sort(named)
	named = slices.Compact(append(named, math.MaxUint32))
	for i, fd := range named[1:] {
		if from := named[i] + 1; from < fd {
			steps = append(steps, step{nr: unix.SYS_CLOSE_RANGE, args: [6]uint64{uint64(from), uint64(fd - 1)}})
		}
	}
	return steps
}

// Notified waits until the child is past its next Notify.
func (p *Process) Notified(ctx context.Context) error {
	var b [1]byte
	_, err := p.read(ctx, b[:])
	if errors.Is(err, io.EOF) {
		return p.failure()
	}
	return err
}

// Release lets the child go on from its next Wait.
func (p *Process) Release() error {
	_, err := p.table.release.w.Write([]byte{'g'})
	if errors.Is(err, unix.EPIPE) {
		return p.failure()
	}
	return err
}

// Started waits until the child has executed its program. It returns a
// StepError if a step failed, ErrDied if the child was killed before.
func (p *Process) Started(ctx context.Context) error {
	var b [1]byte
	_, err := p.read(ctx, b[:])
	switch {
	case err == nil:
		return errors.New("spawn: the child has told something that nobody waited for")
	case !errors.Is(err, io.EOF):
		return err
	}
	return p.failure()
}

// read reads what the child tells, until ctx is done.
func (p *Process) read(ctx context.Context, b []byte) (int, error) {
	r := p.table.status.r
	stop := context.AfterFunc(ctx, func() {
		// A deadline in the past ends the read.
		_ = r.SetReadDeadline(time.Unix(1, 0))
	})
	defer stop()
	n, err := r.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = context.Cause(ctx)
	}
	return n, err
}

// failure says why the child's end of the pipe is closed; nil if it is
// because the program was executed.
func (p *Process) failure() error {
	s := p.table.current()
	if s == nil { // among the first: closing cannot fail
		return ErrDied
	}
	if errno := p.table.head.errno; errno != 0 {
		return &StepError{s.name, unix.Errno(-errno)}
	}
	if s.nr == unix.SYS_EXECVE {
		return nil
	}
	return fmt.Errorf("%w: in the step: %s", ErrDied, s.name)
}

// Tried returns, of a child that has not executed its program, why each path
// that its table names for it could not be executed; 0 where it did not come
// to try.
func (p *Process) Tried() []unix.Errno {
	var all []unix.Errno
	for i := range p.table.count() {
		if s := p.table.at(maxFirst + i); s.nr == unix.SYS_EXECVE {
			all = append(all, unix.Errno(max(-s.result, 0)))
		}
	}
	return all
}

// Pid returns the pid of the process that goes on after the last Clone. It
// is known once the child has told something after that, or has started.
func (p *Process) Pid() int { return int(atomic.LoadInt32(&p.table.head.pid)) }

// Pidfd returns a descriptor of that process, which is not reaped before
// Wait; so the number cannot be another's.
func (p *Process) Pidfd() (*os.File, error) {
	if p.pidfd == nil {
		fd, err := unix.PidfdOpen(p.Pid(), 0)
		if err != nil {
			return nil, os.NewSyscallError("pidfd_open", err)
		}
		p.pidfd = os.NewFile(uintptr(fd), "pidfd")
	}
	return p.pidfd, nil
}

// File returns a descriptor that the child has open, as a copy of our own
// (pidfd_getfd(2), kernel 5.6). s is the step that opened it.
func (p *Process) File(s *Step, name string) (*os.File, error) {
	pidfd, err := p.Pidfd()
	if err != nil {
		return nil, err
	}
	fd, err := unix.PidfdGetfd(int(pidfd.Fd()), s.Result(), 0)
	if err != nil {
		return nil, os.NewSyscallError("pidfd_getfd", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Fill overwrites what the table has at r with data, which must fit, before the
// step that uses it.
func (p *Process) Fill(r Ref, data []byte) {
	at := uintptr(r) - uintptr(unsafe.Pointer(&p.table.mem[0]))
	copy(p.table.mem[at:], data)
}

// Reap waits for the first process, if it was another than the one that goes
// on: it exits at its Clone.
func (p *Process) Reap() error {
	if p.first == 0 || p.first == p.Pid() {
		return nil
	}
	first := p.first
	p.first = 0
	_, err := wait(first)
	return err
}

// Wait waits until the program has ended and returns how.
func (p *Process) Wait() (unix.WaitStatus, error) {
	if err := p.Reap(); err != nil {
		return 0, err
	}
	p.first = 0
	return wait(p.Pid())
}

func wait(pid int) (status unix.WaitStatus, err error) {
	err = sys.Retry(func() error {
		_, err := unix.Wait4(pid, &status, 0, nil)
		return err
	})
	return status, os.NewSyscallError("wait4", err)
}

// Kill kills what has been started, of a start that failed, and reaps it.
func (p *Process) Kill() error {
	if p.attached {
		return killHeld(p.pidfd)
	}
	first, err := p.first, error(nil)
	if first != 0 {
		p.first = 0
		err = kill(first)
	}
	// Only now is it certain that the first does not clone another.
	if pid := p.Pid(); pid != first {
		err = errors.Join(err, kill(pid))
	}
	return err
}

// killHeld kills a process that is not our child, and waits for its end.
func killHeld(pidfd *os.File) error {
	err := unix.PidfdSendSignal(int(pidfd.Fd()), unix.SIGKILL, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return os.NewSyscallError("pidfd_send_signal", err)
	}
	return WaitEnd(context.Background(), pidfd)
}

// killTimeout limits how long a killed child may take to end. One that is frozen
// by cgroup v1 does not before it is thawed.
const killTimeout = 10 * time.Second

func kill(pid int) error {
	err := unix.Kill(pid, unix.SIGKILL) // a child of ours, not reaped: the number is its own
	if err == nil {
		err = waitKilled(pid)
	}
	if errors.Is(err, unix.ECHILD) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

func waitKilled(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	pidfd := os.NewFile(uintptr(fd), "pidfd")
	defer pidfd.Close()
	ctx, cancel := context.WithTimeoutCause(context.Background(), killTimeout,
		fmt.Errorf("process %d was killed and has not ended: is its cgroup frozen?", pid))
	defer cancel()
	if err := WaitEnd(ctx, pidfd); err != nil {
		return err
	}
	_, err = wait(pid)
	return err
}

// Close frees the table and the descriptors. The process goes on.
func (p *Process) Close() {
	p.table.Close()
	if p.pidfd != nil {
		p.pidfd.Close()
	}
}
