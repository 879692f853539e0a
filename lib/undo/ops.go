package undo

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/btrfs"
	"shocker.sh/lib/sys"
	"shocker.sh/lib/trust"
)

// The operations. Each is idempotent: what is gone, or is not what the entry
// names, is left alone and counts as done.
const (
	OpUnmount   = "unmount"   // the mounts on Path, if Dev and Ino are what is there; then Path itself
	OpUnlink    = "unlink"    // the file Path, if its content is Data
	OpRemove    = "remove"    // the directory tree Path, if it has Ino
	OpLink      = "link"      // the network interface Name, if it has Index
	OpCgroup    = "cgroup"    // the cgroups Dirs, of systemd's unit Name if it has one: what runs inside is killed
	OpSubvolume = "subvolume" // the btrfs subvolume Path, if it has UUID
	OpDown      = "down"      // runs Args with Record on its input
)

var operations = map[string]func(*Entry) error{
	OpUnmount:   unmount,
	OpUnlink:    unlink,
	OpRemove:    remove,
	OpLink:      func(e *Entry) error { return deleteLink(e.Name, e.Index) },
	OpCgroup:    cgroups,
	OpSubvolume: subvolume,
	OpDown:      down,
}

func (e *Entry) run() error {
	op, ok := operations[e.Op]
	if !ok {
		return fmt.Errorf("operation %q is not known to this version", e.Op)
	}
	return op(e)
}

func unmount(e *Entry) error {
	for {
		mounted, err := sys.IsMountPoint(e.Path)
		if err != nil {
			return err
		}
		if !mounted {
			break
		}
		var st unix.Stat_t
		if err := unix.Lstat(e.Path, &st); err != nil {
			return &os.PathError{Op: "lstat", Path: e.Path, Err: err}
		}
		if e.Dev != 0 && st.Dev != e.Dev || e.Ino != 0 && st.Ino != e.Ino {
			return nil
		}
		if err := sys.Unmount(e.Path); err != nil {
			return err
		}
	}
	err := os.Remove(e.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func remove(e *Entry) error {
	var st unix.Stat_t
	err := unix.Lstat(e.Path, &st)
	if errors.Is(err, unix.ENOENT) || err == nil && e.Ino != 0 && st.Ino != e.Ino {
		return nil
	}
	children, err := os.ReadDir(e.Path)
	if err != nil {
		return err
	}
	for _, c := range children {
		// Its own entry deletes it; emptied file by file, a program that
		// runs on it would lose its root.
		if _, err := btrfs.UUID(filepath.Join(e.Path, c.Name())); err == nil {
			return fmt.Errorf("%s still holds the subvolume %s", e.Path, c.Name())
		}
	}
	return os.RemoveAll(e.Path)
}

func unlink(e *Entry) error {
	data, err := os.ReadFile(e.Path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && string(data) != e.Data {
		return nil
	}
	if err == nil {
		err = os.Remove(e.Path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func subvolume(e *Entry) error {
	uuid, err := btrfs.UUID(e.Path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, btrfs.ErrNotSubvolume) {
		return nil
	}
	if err != nil {
		return err
	}
	if e.UUID != "" && uuid != e.UUID {
		return nil
	}
	err = btrfs.Delete(e.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// down hands the record to a foreign stage. The program must still be one
// that only root can have put there.
func down(e *Entry) error {
	if len(e.Args) == 0 {
		return errors.New("no program is named")
	}
	if err := trust.Program(e.Args[0]); err != nil {
		return err
	}
	cmd := exec.Command(e.Args[0], e.Args[1:]...)
	cmd.Args[0] = filepath.Base(e.Args[0])
	cmd.Stdin = bytes.NewReader(append(bytes.Clone(e.Record), '\n'))
	var talk bytes.Buffer
	cmd.Stderr = &talk
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", e.Args[0], err, bytes.TrimSpace(talk.Bytes()))
	}
	return nil
}
