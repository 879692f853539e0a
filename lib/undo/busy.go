package undo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/sys"
)

// Busy marks that a command is at work on a container. The mark is a file
// that the command holds locked; one that nobody holds is left of a command
// that was killed, and tells gc that the container will not go on.
type Busy struct {
	f    *os.File
	path string
}

// Take makes the run dir, which must not be there (else fs.ErrExist), with the
// mark of the named command already in it: there is no instant at which it
// looks forgotten.
func (l *Log) Take(name string) (_ *Busy, retErr error) {
	temp, err := os.MkdirTemp(filepath.Dir(l.runDir), ".new-*")
	if err != nil {
		return nil, err
	}
	defer func() {
		if retErr != nil {
			retErr = errors.Join(retErr, os.RemoveAll(temp))
		}
	}()
	// Its own root user passes through the run dir, and reads nothing in it.
	if err := os.Chmod(temp, 0o711); err != nil {
		return nil, err
	}
	b, err := Open(temp).Begin(name)
	if err != nil {
		return nil, err
	}
	if err := unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, l.runDir, unix.RENAME_NOREPLACE); err != nil {
		return nil, errors.Join(&os.LinkError{Op: "rename", Old: temp, New: l.runDir, Err: err}, b.Done())
	}
	b.path = filepath.Join(l.busy(), name)
	return b, nil
}

func (l *Log) busy() string { return filepath.Join(l.runDir, "busy") }

// Begin marks the container as being worked on by the named stage or command.
// Marks of others that nobody holds any more are taken away: who got this far
// with the record has it from them whole.
func (l *Log) Begin(name string) (*Busy, error) {
	dir := l.busy()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("begin %s: %w", name, err)
	}
	// Locked before it has its name: a mark without a lock is a dead one.
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return nil, fmt.Errorf("begin %s: %w", name, err)
	}
	b := &Busy{f, f.Name()}
	if err := sys.Flock(f, unix.LOCK_EX); err != nil {
		return nil, errors.Join(err, b.Done())
	}
	path := filepath.Join(dir, name)
	if err := os.Rename(f.Name(), path); err != nil {
		return nil, errors.Join(err, b.Done())
	}
	b.path = path
	marks, err := os.ReadDir(dir)
	if err != nil {
		return nil, errors.Join(err, b.Done())
	}
	for _, m := range marks {
		if m.Name() == name {
			continue
		}
		if _, err := dead(filepath.Join(dir, m.Name()), true); err != nil {
			return nil, errors.Join(err, b.Done())
		}
	}
	return b, nil
}

// Done takes the mark away.
func (b *Busy) Done() error {
	err := os.Remove(b.path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // the container is gone with its run dir
	}
	return errors.Join(err, b.f.Close())
}

// Working says whether some command works on the container now (live), and
// whether one was killed while it did (died).
func (l *Log) Working() (live, died bool, err error) {
	dir := l.busy()
	marks, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, false, nil
	}
	if err != nil {
		return false, false, err
	}
	for _, m := range marks {
		if strings.HasPrefix(m.Name(), ".") {
			continue
		}
		d, err := dead(filepath.Join(dir, m.Name()), false)
		if err != nil {
			return false, false, err
		}
		live = live || !d
		died = died || d
	}
	return live, died, nil
}

// dead says whether nobody holds the mark, and then removes it if asked to.
func dead(path string, remove bool) (bool, error) {
	f, err := os.OpenFile(path, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // just done
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	// Shared: others who look must not take us for its owner.
	err = sys.Flock(f, unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if remove {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return true, nil
}
