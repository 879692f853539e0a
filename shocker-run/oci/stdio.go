package oci

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/applet"
	"shocker.sh/lib/sys"
	"shocker.sh/shocker-run/internal/console"
	"shocker.sh/shocker-run/internal/container"
	streams "shocker.sh/shocker-run/internal/stdio"
)

// stdio is what a program reads and writes: our own descriptors 0 to 2, or a
// terminal, whose master goes to an engine's socket, or which we relay.
type stdio struct {
	child   [3]*os.File
	files   []*os.File       // from 3 up
	sockets int              // how many of them are to listen on
	socket  int              // for a terminal's master; -1: none
	pidfd   int              // socket for the process's pidfd; -1: none
	streams *streams.Streams // of a terminal that we relay
}

// patience is how long an engine may take to accept the terminal or the pidfd.
const patience = 10 * time.Second

func (t *tool) stdio(c *cli.Context, terminal, detach bool) (*stdio, error) {
	s := &stdio{socket: -1, pidfd: -1}
	path := c.String("console-socket")
	if (path != "") != (terminal && detach) {
		if path == "" {
			return nil, fmt.Errorf("cannot allocate tty if %s will detach without setting console socket: %w", Name, ErrConsole)
		}
		return nil, fmt.Errorf("cannot use console socket if %s will not detach or allocate tty: %w", Name, ErrConsole)
	}
	var err error
	switch {
	case path != "":
		s.socket, err = dial("console socket", path)
	case terminal:
		var caller *os.File
		if caller, err = t.terminal(); err == nil {
			s.streams, err = streams.Open(streams.Options{In: t.io.In, Out: t.io.Out, Terminal: true, Caller: caller})
		}
	default:
		s.child = [3]*os.File{t.io.In, t.io.Out, t.io.Err}
	}
	if err == nil {
		err = s.preserve(c.Int("preserve-fds"))
	}
	if path := c.String("pidfd-socket"); err == nil && path != "" {
		s.pidfd, err = dial("pidfd socket", path)
	}
	return s, err
}

// terminal opens the terminal that we are used from: one of ours, or where all
// are redirected, the one that controls us.
func (t *tool) terminal() (*os.File, error) {
	for _, f := range []*os.File{t.io.In, t.io.Out, t.io.Err} {
		if f == nil || !console.Is(f) {
			continue
		}
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return nil, os.NewSyscallError("fcntl", err)
		}
		return os.NewFile(uintptr(fd), f.Name()), nil
	}
	f, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("relay the program's terminal: neither stdin nor stdout nor stderr is one, and there is no other: %w", err)
	}
	return f, nil
}

// preserve takes descriptors from 3 up for the program: those that a service
// manager has opened to listen on (sd_listen_fds(3)), and n more. Only the last
// one of these has to be open: who wants to pass on descriptor 5 alone, as
// podman's --preserve-fd does, counts up to it.
func (s *stdio) preserve(n int) error {
	if n < 0 {
		return applet.Usagef("--preserve-fds %d: want 0 or more", n)
	}
	if list := os.Getenv("LISTEN_FDS"); list != "" {
		var err error
		if s.sockets, err = strconv.Atoi(list); err != nil || s.sockets < 0 || s.sockets > math.MaxInt32 {
			return applet.Usagef("LISTEN_FDS %q is not a number of descriptors", list)
		}
	}
	last := 2 + s.sockets + min(n, math.MaxInt32)
	if n > 0 && !passed(last) { // before all numbers up to it are tried
		return notPassed(last)
	}
	for fd := 3; fd <= last; fd++ {
		if !passed(fd) {
			if fd < 3+s.sockets {
				return notPassed(fd)
			}
			s.files = append(s.files, nil)
			continue
		}
		unix.CloseOnExec(fd) // hooks do not get it
		s.files = append(s.files, os.NewFile(uintptr(fd), strconv.Itoa(fd)))
	}
	return nil
}

// passed says whether a descriptor has come across execve: it does not close on it.
// What does is our own.
func passed(fd int) bool {
	if fd > math.MaxInt32 { // to the kernel it would be another one
		return false
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil && flags&unix.FD_CLOEXEC == 0
}

func notPassed(fd int) error {
	return applet.Usagef("descriptor %d is to be passed on, and is not open", fd)
}

// give lets a container have it all.
func (s *stdio) give(o *container.Options) {
	o.Stdio, o.OwnStdio, o.Files, o.ListenFDs = s.child, s.own, s.files, s.sockets
}

// dial connects to an engine's socket, before anything is made.
func dial(what, path string) (int, error) {
	fd, err := sys.Connect(unix.SOCK_STREAM, path, patience)
	if err != nil {
		return -1, fmt.Errorf("%s: %w", what, err)
	}
	return fd, nil
}

// own gives our stdio to the program's user, so that it can open /dev/stdout
// again. Devices belong to the host: /dev/null, and the caller's terminal.
func (s *stdio) own(uid, gid int) error {
	for _, f := range s.child {
		if f == nil {
			continue
		}
		st, err := f.Stat()
		if err != nil {
			return err
		}
		if st.Mode()&os.ModeDevice != 0 {
			continue
		}
		if st.Mode().IsRegular() || st.IsDir() {
			// What we have for reading only, the program could write to as its owner.
			flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
			if err != nil {
				return os.NewSyscallError("fcntl", err)
			}
			if flags&unix.O_ACCMODE == unix.O_RDONLY {
				continue
			}
		}
		err = f.Chown(uid, gid)
		// What cannot be given away, on a read-only file system or another's
		// user namespace, can be written to all the same.
		if err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("give stdio to the container's user: %w", err)
		}
	}
	return nil
}

// connect connects a created container's terminal, if it has one.
func (s *stdio) connect(master *os.File, size *specs.Box) error {
	if master == nil {
		return nil
	}
	if size != nil {
		if err := console.SetSize(master, uint16(size.Height), uint16(size.Width)); err != nil {
			return errors.Join(err, master.Close())
		}
	}
	if s.streams != nil {
		if err := s.streams.Start(master); err != nil {
			return err
		}
		return s.streams.Resize()
	}
	defer master.Close()
	if err := send(s.socket, "/dev/ptmx", master); err != nil {
		return fmt.Errorf("send the terminal to the console socket: %w", err)
	}
	return nil
}

// identify sends the process's pidfd to whoever wants to signal and wait for
// that process, and no later one with its pid.
func (s *stdio) identify(c *container.Container) error {
	if s.pidfd < 0 {
		return nil
	}
	pidfd, err := c.Pidfd()
	if err == nil {
		err = send(s.pidfd, "pidfd", pidfd)
	}
	if err != nil {
		return fmt.Errorf("send the pidfd to its socket: %w", err)
	}
	return nil
}

// send sends a descriptor with a name for it.
func send(socket int, name string, f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	err = raw.Control(func(fd uintptr) {
		// What is received is blocking for an engine that does not expect else.
		sendErr = errors.Join(
			unix.SetNonblock(int(fd), false),
			unix.Sendmsg(socket, []byte(name), unix.UnixRights(int(fd)), nil, unix.MSG_NOSIGNAL),
		)
	})
	return errors.Join(err, sendErr)
}

// close lets go of what is not the program's.
func (s *stdio) close() {
	for _, fd := range []*int{&s.socket, &s.pidfd} {
		if *fd >= 0 {
			_ = unix.Close(*fd) // nothing is written to it any more
			*fd = -1
		}
	}
	if s.streams != nil {
		_ = s.streams.Close()
	}
}

// finish is called when the program has ended.
func (s *stdio) finish() error {
	if s.streams == nil {
		return nil
	}
	return s.streams.Finish()
}
