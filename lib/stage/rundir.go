package stage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/sys"
)

// MakeRun makes the run dir of a container, and the root of the run dirs: a
// tmpfs that is a private mount, so that what is pinned in it is not copied
// into every other mount namespace. Its own root user passes through the run
// dir (0711) and reads nothing in it.
func (h Host) MakeRun(id string) (string, error) {
	if err := h.MountRun(); err != nil {
		return "", fmt.Errorf("make the run dir: %w", err)
	}
	dir := h.RunDir(id)
	if err := os.Mkdir(dir, 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("make the run dir: %w", err)
	}
	return dir, nil
}

// MountRun makes the root of the run dirs.
func (h Host) MountRun() error {
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
	if err := sys.Mount("shocker", h.Run, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0711"); err != nil {
		return err
	}
	return sys.Mount("", h.Run, "", unix.MS_PRIVATE, "")
}

// RemoveRun removes the run dir of a container. What it pinned must have been
// undone.
func (h Host) RemoveRun(id string) error {
	return os.RemoveAll(h.RunDir(id))
}

// UnmountRun takes the root of the run dirs away if nothing is in it.
func (h Host) UnmountRun() error {
	entries, err := os.ReadDir(h.Run)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		// What is in use is not empty, and stays.
		if err := os.Remove(filepath.Join(h.Run, e.Name())); err != nil {
			return nil
		}
	}
	mounted, err := sys.IsMountPoint(h.Run)
	if err != nil || !mounted {
		return err
	}
	return sys.Unmount(h.Run)
}
