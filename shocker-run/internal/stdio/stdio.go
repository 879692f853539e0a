// Package stdio connects a program in a container with its caller and its
// log: through pipes, or through a terminal of the container's own.
//
//	caller's stdin  --copy-->  pipe or terminal  ->  program
//	caller's stdout <--copy--  pipe or terminal  <-  program
//	                   |
//	                   +->  log
//
// The program never holds a descriptor of its caller.
package stdio

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"shocker.sh/shocker-run/internal/console"
	"shocker.sh/shocker-run/internal/logs"
)

// Options say what a program's streams are connected with.
type Options struct {
	// In is what the program reads; nil: /dev/null, or nothing if Held. With
	// Terminal and no Caller it has to be one too.
	In       *os.File
	Held     bool         // stdin stays open though nobody writes to it
	Out, Err io.Writer    // nil: only to the log
	Log      *logs.Writer // nil: no log
	Terminal bool         // one terminal in the place of three pipes
	Null     bool         // all three are /dev/null
	// Caller is the caller's terminal where In need not be it; Streams closes
	// it. Newlines then pass as the program writes them, and this terminal
	// shows them as lines: where Out is a file, they stay newlines.
	Caller *os.File
}

// ErrNoTerminal is an input of a program with a terminal which is none. An end
// of file cannot be typed for it: by then the program may have switched its
// terminal to raw, or not yet, and would wait for ever.
var ErrNoTerminal = errors.New("stdin is not a terminal: of -i and -t leave one out")

// Streams are the connections of one program.
type Streams struct {
	// Child are what the program gets as its descriptors 0 to 2; all nil
	// with a terminal, which its own process opens.
	Child [3]*os.File

	o       Options
	ours    [3]*os.File // our ends of the pipes
	pumps   sync.WaitGroup
	pumping [3]*pump
	read    atomic.Pointer[error] // what kept us from reading all of In
	master  *os.File
	raw     *console.Terminal
}

// Open makes the pipes.
func Open(o Options) (_ *Streams, retErr error) {
	s := &Streams{o: o}
	if o.Terminal {
		if o.In != nil && o.Caller == nil && !console.Is(o.In) {
			return nil, ErrNoTerminal
		}
		return s, nil
	}
	defer func() {
		if retErr != nil {
			s.Close()
		}
	}()
	for i := range 3 {
		if o.Null || i == 0 && o.In == nil && !o.Held {
			null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
			if err != nil {
				return nil, err
			}
			s.Child[i] = null
			continue
		}
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			return nil, os.NewSyscallError("pipe", err)
		}
		ours, child := p[0], p[1]
		if i == 0 {
			ours, child = child, ours
		}
		s.Child[i] = os.NewFile(uintptr(child), "pipe")
		// Only our end may be non-blocking: the program would not expect it.
		err := unix.SetNonblock(ours, true)
		s.ours[i] = os.NewFile(uintptr(ours), "pipe")
		if err != nil {
			return nil, os.NewSyscallError("fcntl", err)
		}
	}
	return s, nil
}

// Chown gives the pipes to the program's user, so that it can open /dev/stdout
// again. /dev/null belongs to the host.
func (s *Streams) Chown(uid, gid int) error {
	for i, f := range s.Child {
		if f == nil || s.ours[i] == nil {
			continue
		}
		if err := f.Chown(uid, gid); err != nil {
			return fmt.Errorf("give stdio to the container's user: %w", err)
		}
	}
	return nil
}

// Start begins to copy, once the program has its ends. With a terminal,
// master is its other side, which Streams closes at the end; the terminal that
// the caller types into is put into raw mode.
func (s *Streams) Start(master *os.File) error {
	for i, f := range s.Child {
		if f != nil {
			f.Close()
			s.Child[i] = nil
		}
	}
	if s.o.Terminal {
		return s.startTerminal(master)
	}
	if s.o.In != nil {
		go func() {
			s.feed()
			s.ours[0].Close()
		}()
	}
	if !s.o.Null {
		s.pump(1, s.ours[1], logs.Stdout, s.o.Out)
		s.pump(2, s.ours[2], logs.Stderr, s.o.Err)
	}
	return nil
}

// feed copies the caller's stdin to the program. That the program does not
// read all of it is its own affair. That we cannot is not: it would take a part
// for the whole.
func (s *Streams) feed() {
	_, err := io.Copy(s.ours[0], s.o.In)
	if err == nil || gone(err, s.o.In) || errors.Is(err, os.ErrClosed) {
		return
	}
	err = fmt.Errorf("stdin is not complete: %w", err)
	s.read.Store(&err)
}

func (s *Streams) startTerminal(master *os.File) error {
	s.master = master
	typed := s.o.In
	if s.o.Caller != nil {
		typed = s.o.Caller
		if err := console.PassNewlines(master); err != nil {
			return err
		}
	}
	if typed != nil {
		var err error
		if s.raw, err = console.MakeRaw(typed, s.o.Caller != nil); err != nil {
			return err
		}
	}
	if in := s.o.In; in != nil {
		go func() {
			defer s.restoreOnPanic()
			_, _ = io.Copy(master, in)
		}()
	}
	s.pump(1, master, logs.Stdout, s.o.Out)
	return nil
}

// pump copies one stream from the program.
type pump struct {
	r      *os.File
	stream string
	out    io.Writer
	err    error // what of its output could not be written
}

func (s *Streams) pump(i int, r *os.File, stream string, out io.Writer) {
	p := &pump{r: r, stream: stream, out: out}
	s.pumping[i] = p
	s.pumps.Go(func() {
		defer s.restoreOnPanic()
		// Closed when the last byte is through, or when nobody reads any
		// more: then the program gets SIGPIPE, or with a terminal SIGHUP.
		defer r.Close()
		p.run(s.o.Log)
	})
}

// run copies until the end of the stream, until nobody takes what it writes,
// or until the program has ended and nothing more is in the pipe: somebody
// else, whom it left behind, may hold it open for ever.
func (p *pump) run(log *logs.Writer) {
	buf := make([]byte, 32<<10)
	for {
		n, err := p.r.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			n, err = readNow(p.r, buf)
		}
		if n > 0 {
			if log != nil {
				log.Write(p.stream, buf[:n])
			}
			if p.out != nil {
				if _, err := p.out.Write(buf[:n]); err != nil {
					if !gone(err, p.out) {
						p.err = fmt.Errorf("%s is not complete: %w", p.stream, err)
					}
					return
				}
			}
		}
		if err != nil || n == 0 {
			return // io.EOF; EIO from a terminal that nobody holds any more
		}
	}
}

// gone says whether an error of copying from or to file only means that nobody
// is at the other end: of a pipe, or of a terminal (EIO).
func gone(err error, file any) bool {
	f, ok := file.(*os.File)
	return errors.Is(err, unix.EPIPE) || errors.Is(err, unix.EIO) && ok && console.Is(f)
}

// readNow reads what there is, 0 if there is nothing.
func readNow(f *os.File, buf []byte) (n int, _ error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	err2 := raw.Control(func(fd uintptr) {
		for {
			n, err = unix.Read(int(fd), buf)
			if !errors.Is(err, unix.EINTR) {
				return
			}
		}
	})
	return max(n, 0), errors.Join(err, err2)
}

// Finish is called when the program has ended: it copies what is still in the
// pipes, puts the caller's terminal back and closes everything. It returns what
// has kept input or output from being whole.
func (s *Streams) Finish() error {
	for _, p := range s.pumping {
		if p != nil {
			_ = p.r.SetReadDeadline(time.Unix(1, 0)) // closed already: it has ended
		}
	}
	s.pumps.Wait()
	errs := []error{s.Close()}
	if err := s.read.Load(); err != nil {
		errs = append(errs, *err)
	}
	for _, p := range s.pumping {
		if p != nil {
			errs = append(errs, p.err)
		}
	}
	return errors.Join(errs...)
}

// Close closes our ends and puts the caller's terminal back.
func (s *Streams) Close() error {
	for _, files := range [2][3]*os.File{s.Child, s.ours} {
		for _, f := range files {
			if f != nil {
				f.Close()
			}
		}
	}
	if s.master != nil {
		s.master.Close()
	}
	err := s.Restore()
	if s.o.Caller != nil {
		s.o.Caller.Close()
	}
	return err
}

// Restore puts the caller's terminal back into the mode that it had.
func (s *Streams) Restore() error {
	if s.raw == nil {
		return nil
	}
	return s.raw.Restore()
}

// restoreOnPanic keeps a bug of ours from leaving the terminal unusable.
func (s *Streams) restoreOnPanic() {
	if bug := recover(); bug != nil {
		_ = s.Restore()
		panic(bug)
	}
}

// SetSize gives the program's terminal a size in characters.
func (s *Streams) SetSize(rows, columns uint16) error {
	return console.SetSize(s.master, rows, columns)
}

// Resize gives the program's terminal the size of the caller's: the one that
// is typed into, or else the one that shows the output.
func (s *Streams) Resize() error {
	if s.master == nil {
		return nil
	}
	out, _ := s.o.Out.(*os.File)
	for _, f := range []*os.File{s.o.Caller, s.o.In, out} {
		if f != nil && console.Is(f) {
			return console.CopySize(f, s.master)
		}
	}
	return nil
}
