// Package console puts the caller's terminal into raw mode for a program with
// a terminal of its own, and back.
package console

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Is says whether f is a terminal.
func Is(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Terminal is a terminal in raw mode.
type Terminal struct {
	f       *os.File
	saved   unix.Termios
	restore sync.Once
	err     error
}

// MakeRaw puts the terminal f into raw mode (termios(3), cfmakeraw): every
// key goes to the reader as it is, and what is written is shown as it is, or
// with lines as whole lines: a newline also goes to the left margin.
func MakeRaw(f *os.File, lines bool) (*Terminal, error) {
	saved, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return nil, &os.PathError{Op: "read mode of terminal", Path: f.Name(), Err: err}
	}
	raw := *saved
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	if !lines {
		raw.Oflag &^= unix.OPOST
	}
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, &raw); err != nil {
		return nil, &os.PathError{Op: "set mode of terminal", Path: f.Name(), Err: err}
	}
	return &Terminal{f: f, saved: *saved}, nil
}

// Restore puts the terminal back as it was. It may be called from several
// goroutines, more than once.
func (t *Terminal) Restore() error {
	t.restore.Do(func() {
		if err := unix.IoctlSetTermios(int(t.f.Fd()), unix.TCSETS, &t.saved); err != nil {
			t.err = &os.PathError{Op: "restore mode of terminal", Path: t.f.Name(), Err: err}
		}
	})
	return t.err
}

// CopySize gives the terminal to the size of from.
func CopySize(from, to *os.File) error {
	size, err := unix.IoctlGetWinsize(int(from.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return &os.PathError{Op: "read size of terminal", Path: from.Name(), Err: err}
	}
	return SetSize(to, size.Row, size.Col)
}

// SetSize gives a terminal its size in characters.
func SetSize(f *os.File, rows, columns uint16) error {
	raw, err := f.SyscallConn() // Fd would make f blocking
	if err != nil {
		return err
	}
	var ioctlErr error
	err = raw.Control(func(fd uintptr) {
		ioctlErr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	})
	if err == nil {
		err = ioctlErr
	}
	if err != nil {
		return &os.PathError{Op: "set size of terminal", Path: f.Name(), Err: err}
	}
	return nil
}

// PassNewlines lets a terminal pass on the newlines that a program writes as
// they are, without a carriage return: our caller's own terminal adds that.
func PassNewlines(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var ioctlErr error
	err = raw.Control(func(fd uintptr) {
		var mode *unix.Termios
		if mode, ioctlErr = unix.IoctlGetTermios(int(fd), unix.TCGETS); ioctlErr == nil {
			mode.Oflag &^= unix.ONLCR
			ioctlErr = unix.IoctlSetTermios(int(fd), unix.TCSETS, mode)
		}
	})
	if err == nil {
		err = ioctlErr
	}
	if err != nil {
		return &os.PathError{Op: "set mode of terminal", Path: f.Name(), Err: err}
	}
	return nil
}
