package stage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/sys"
)

// MakeRun makes the run dir of a container, unless it is there.
func (h Host) MakeRun(id string) (string, error) {
	release, err := h.HoldRun()
	if err != nil {
		return "", err
	}
	defer release()
	dir := h.RunDir(id)
	// Its own root user passes through the run dir, and reads nothing in it.
	if err := os.Mkdir(dir, 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("make the run dir: %w", err)
	}
	return dir, nil
}

// maxTries is how often we lose against others that remove the run dirs, before
// we say that they cannot be made there.
const maxTries = 1000

// HoldRun makes the root of the run dirs, a tmpfs that is a private mount, so
// that what is pinned in it is not copied into every other mount namespace. It
// stays at least until release is called.
func (h Host) HoldRun() (release func(), err error) {
	for try := 0; ; try++ {
		// Whenever it is not there, the last container may just have gone and
		// taken it along.
		again := func(err error) bool { return errors.Is(err, fs.ErrNotExist) && try < maxTries }
		if err := h.mountRun(); err != nil && !again(err) {
			return nil, fmt.Errorf("make the run dirs: %w", err)
		}
		root, err := sys.OpenDir(h.Run)
		if again(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := sys.Flock(root, unix.LOCK_SH); err != nil {
			return nil, errors.Join(err, root.Close())
		}
		if mounted, err := same(root, h.Run); err != nil || mounted {
			return func() { root.Close() }, err
		}
		root.Close()
	}
}

// same says whether the open directory is what is mounted at path.
func same(dir *os.File, path string) (bool, error) {
	at, err := sys.IsAt(dir, path)
	if err != nil || !at {
		return false, err
	}
	return sys.IsMountPoint(path)
}

func (h Host) mountRun() error {
	mounted, err := sys.IsMountPoint(h.Run)
	if err != nil || mounted {
		return err
	}
	if err := os.MkdirAll(h.Run, 0o711); err != nil {
		return err
	}
	// The directory below the mount is the lock.
	dir, err := sys.OpenDir(h.Run)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := sys.Flock(dir, unix.LOCK_EX); err != nil {
		return err
	}
	if mounted, err = sys.IsMountPoint(h.Run); err != nil || mounted {
		return err
	}
	if at, err := sys.IsAt(dir, h.Run); err != nil || !at {
		return errors.Join(err, fs.ErrNotExist) // taken away before we had the lock
	}
	if err := sys.Mount(mountSource, h.Run, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0711"); err != nil {
		return err
	}
	err = sys.Mount("", h.Run, "", unix.MS_PRIVATE, "")
	if errors.Is(err, unix.EINVAL) {
		return fs.ErrNotExist // who found it empty has taken it away already
	}
	return err
}

// RemoveRun removes the run dir of a container. What it pinned must have been
// undone.
func (h Host) RemoveRun(id string) error {
	return os.RemoveAll(h.RunDir(id))
}

// mountSource tells our mount from an administrator's: it is there from the
// call that mounts on.
const mountSource = "shocker"

// isOurs says whether what is mounted at h.Run is what mountRun mounts there.
func (h Host) isOurs() (bool, error) {
	mounts, err := sys.Mounts()
	if err != nil {
		return false, err
	}
	path, err := filepath.EvalSymlinks(h.Run)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // another has just taken it away
	}
	if err != nil {
		return false, err
	}
	for _, m := range slices.Backward(mounts) { // the topmost
		if m.Path == path {
			return m.Type == "tmpfs" && m.Source == mountSource, nil
		}
	}
	return false, nil
}

// UnmountRun takes the root of the run dirs away, with its mount, if nothing is
// in it and nobody holds it. A mount that is not ours stays.
func (h Host) UnmountRun() (retErr error) {
	root, err := sys.OpenDir(h.Run)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { retErr = errors.Join(retErr, root.Close()) }()
	err = sys.Flock(root, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil
	}
	if err != nil {
		return err
	}
	mounted, err := same(root, h.Run)
	if err != nil {
		return err
	}
	if !mounted { // a command was killed before it had mounted on it
		return h.removeRoot(root)
	}
	entries, err := root.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		// What is in use is not empty, and stays, as does what is not ours.
		if !strings.HasPrefix(e.Name(), ".") || unix.Rmdir(filepath.Join(h.Run, e.Name())) != nil {
			return nil
		}
	}
	ours, err := h.isOurs()
	if err != nil || !ours {
		return err
	}
	if err := sys.Unmount(h.Run); err != nil {
		return err
	}
	// Who is about to mount on it again has its lock.
	below, err := sys.OpenDir(h.Run)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { retErr = errors.Join(retErr, below.Close()) }()
	if err := sys.Flock(below, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil
		}
		return err
	}
	return h.removeRoot(below)
}

// removeRoot removes the root of the run dirs, below the mount. It is empty,
// unless somebody else uses it too. The caller has locked it; dir may be what is
// below another mount by now, whose users hold another lock.
func (h Host) removeRoot(dir *os.File) error {
	at, err := sys.IsAt(dir, h.Run)
	if err != nil || !at {
		return err
	}
	if err := os.Remove(h.Run); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EBUSY) {
		return err
	}
	return nil
}
