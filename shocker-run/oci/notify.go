package oci

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/spawn"
	"shocker.sh/lib/sys"
	"shocker.sh/shocker-run/internal/container"
)

// A service manager that wants to know when its service is ready names a socket
// in our environment (sd_notify(3)). The program does not get that one, by which
// it could say anything in the name of the service, but one of ours. Only that
// it is ready is passed on, and which process is to be watched:
//
//	manager                      start, run                        program
//	$NOTIFY_SOCKET               ROOT/ID/notify/notify.sock        /run/notify/notify.sock
//	         ◀── MAINPID=PID ──              ◀────── READY=1 ─────
//	             READY=1
//	         ◀── BARRIER=1 ────
//	         ─── end of file ─▶ exit
//
// create mounts the directory only: who binds the socket has to be there until
// the program is ready.
const (
	notifyVariable = "NOTIFY_SOCKET"
	notifySocket   = "notify.sock"
	notifyInside   = "/run/notify"
)

// barrierPatience is how long a manager may take to hear us before we exit.
const barrierPatience = 30 * time.Second

// announce gives the program a place to tell that it is ready, if a manager
// wants to know.
func (n *creation) announce() error {
	if os.Getenv(notifyVariable) == "" || n.spec.Process == nil {
		return nil
	}
	dir, err := filepath.Abs(n.path("notify")) // a relative source counts from the bundle
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // whatever the umask
		return err
	}
	n.spec.Mounts = append(n.spec.Mounts, specs.Mount{
		Destination: notifyInside, Source: dir, Options: []string{"bind", "nosuid", "noexec", "nodev", "ro"},
	})
	n.spec.Process.Env = append(n.spec.Process.Env, notifyVariable+"="+notifyInside+"/"+notifySocket)
	return nil
}

// readiness waits for a program to say that it is ready. A nil one waits for
// nothing.
type readiness struct {
	dir     *os.File // of the program's socket
	program int
	manager int
}

// listen opens what a program tells, and connects to who wants to know. The
// caller has locked the container, whose program does not run yet.
func (b *box) listen() (_ *readiness, retErr error) {
	path := os.Getenv(notifyVariable)
	if path == "" {
		return nil, nil
	}
	dir, err := sys.OpenDir(b.path("notify"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // create was not asked for it
	}
	if err != nil {
		return nil, err
	}
	r := &readiness{dir: dir, program: -1, manager: -1}
	defer func() {
		if retErr != nil {
			r.close()
		}
	}()
	if r.manager, err = sys.Connect(unix.SOCK_DGRAM, path, patience); err != nil {
		return nil, fmt.Errorf("%s: %w", notifyVariable, err)
	}
	if r.program, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	// By the directory, since its path may be too long for a socket's. All users
	// of the container can write to it.
	at := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), notifySocket)
	old := unix.Umask(0)
	err = unix.Bind(r.program, &unix.SockaddrUnix{Name: at})
	unix.Umask(old)
	if err != nil {
		return nil, &os.PathError{Op: "bind", Path: b.path("notify/" + notifySocket), Err: err}
	}
	return r, nil
}

// relay tells the manager when the program is ready, and that main is the
// process to watch. It is no error if the container ends before. What the
// program says later is refused: nobody would read it, and it would wait.
func (r *readiness) relay(ctx context.Context, c *container.Container, main int) (ready bool, err error) {
	defer r.unbind()
	pidfd, err := c.Pidfd()
	if err != nil {
		return false, err
	}
	buf := make([]byte, 4096) // as much as systemd takes
	for ctx.Err() == nil {
		fds := []unix.PollFd{{Fd: int32(r.program), Events: unix.POLLIN}, {Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, 100); err != nil && !errors.Is(err, unix.EINTR) { // ms; then ctx is looked at
			return false, os.NewSyscallError("poll", err)
		}
		n, err := unix.Read(r.program, buf)
		switch {
		case err == nil && slices.Contains(strings.Split(string(buf[:n]), "\n"), "READY=1"):
			return true, r.tell("MAINPID="+strconv.Itoa(main)+"\nREADY=1", nil)
		case err == nil || errors.Is(err, unix.EINTR):
		case !errors.Is(err, unix.EAGAIN):
			return false, &os.PathError{Op: "read", Path: r.dir.Name(), Err: err}
		case fds[1].Revents != 0:
			return false, nil
		}
	}
	return false, context.Cause(ctx)
}

// await relays the readiness of a container that goes on without us. The
// manager has to hear it while we are still there, or it could not tell whose
// word that is (sd_notify_barrier(3)).
func (r *readiness) await(ctx context.Context, c *container.Container, warn func(string)) error {
	if r == nil {
		return nil
	}
	ready, err := r.relay(ctx, c, c.Pid())
	if !ready || err != nil {
		return err
	}
	heard, hold, err := os.Pipe()
	if err != nil {
		return err
	}
	defer heard.Close()
	err = errors.Join(r.tell("BARRIER=1", unix.UnixRights(int(hold.Fd()))), hold.Close())
	if err != nil {
		return err
	}
	slow := errors.New("the manager at " + notifyVariable + " has not closed its barrier")
	ctx, cancel := context.WithTimeoutCause(ctx, barrierPatience, slow)
	defer cancel()
	err = spawn.WaitEnd(ctx, heard)
	if errors.Is(err, slow) {
		warn(slow.Error()) // it may know of none
		return nil
	}
	return err
}

func (r *readiness) tell(text string, rights []byte) error {
	err := sys.Retry(func() error { return unix.Sendmsg(r.manager, []byte(text), rights, nil, unix.MSG_NOSIGNAL) })
	if err != nil {
		return fmt.Errorf("tell %s: %w", os.Getenv(notifyVariable), err)
	}
	return nil
}

func (r *readiness) unbind() {
	if r.program < 0 {
		return
	}
	_ = unix.Unlinkat(int(r.dir.Fd()), notifySocket, 0) // delete has done so, or will
	_ = unix.Close(r.program)                           // it was only read from
	r.program = -1
}

func (r *readiness) close() {
	if r == nil {
		return
	}
	r.unbind()
	if r.manager >= 0 {
		_ = unix.Close(r.manager) // nothing is written to it any more
	}
	r.dir.Close()
}
