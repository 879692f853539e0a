package container

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/sys"
)

// Mounts are made by descriptor (kernel 5.2, mount_setattr 5.12): a file
// system or a copy of a tree is a descriptor first, complete with its
// attributes, and is attached by one move_mount in the container's process.

// newMount makes a file system that is not attached anywhere, in the parent's
// namespaces. set are MOUNT_ATTR_ flags.
func newMount(fstype, source string, data []string, set uint64) (*os.File, error) {
	ctx, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fsopen %s: %w", fstype, err)
	}
	defer unix.Close(ctx)
	if err := unix.FsconfigSetString(ctx, "source", source); err != nil {
		return nil, fmt.Errorf("%s: %w", fstype, withLog(ctx, err))
	}
	for _, d := range data {
		key, value, hasValue := strings.Cut(d, "=")
		if hasValue {
			err = unix.FsconfigSetString(ctx, key, value)
		} else {
			err = unix.FsconfigSetFlag(ctx, key)
		}
		if err != nil {
			return nil, fmt.Errorf("%s option %q: %w", fstype, d, withLog(ctx, err))
		}
	}
	if err := unix.FsconfigCreate(ctx); err != nil {
		return nil, fmt.Errorf("make %s: %w", fstype, withLog(ctx, err))
	}
	fd, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, int(set))
	if err != nil {
		return nil, fmt.Errorf("fsmount %s: %w", fstype, withLog(ctx, err))
	}
	return os.NewFile(uintptr(fd), fstype), nil
}

// withLog adds what the kernel has to say about a failed fsconfig.
func withLog(ctx int, err error) error {
	buf := make([]byte, 1024)
	n, readErr := unix.Read(ctx, buf)
	if readErr != nil || n <= 0 {
		return err
	}
	return fmt.Errorf("%w (%s)", err, strings.TrimSpace(strings.TrimPrefix(string(buf[:n]), "e ")))
}

// copyTree copies the mount at path, with all below it if recursive, as a tree
// that is not attached anywhere. A copy of a shared mount is shared with it.
func copyTree(path string, recursive bool) (*os.File, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	var fd int
	err := sys.Retry(func() (err error) {
		fd, err = unix.OpenTree(unix.AT_FDCWD, path, flags)
		return err
	})
	if err != nil {
		return nil, &os.PathError{Op: "copy mount", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// cloneTree copies the mount at path as a private one.
func cloneTree(path string, recursive bool, set, clear uint64) (*os.File, error) {
	tree, err := copyTree(path, recursive)
	if err != nil {
		return nil, err
	}
	err = setAttr(tree, recursive, &unix.MountAttr{Propagation: unix.MS_PRIVATE})
	if err == nil && set|clear != 0 {
		err = setAttr(tree, false, &unix.MountAttr{Attr_set: set, Attr_clr: clear})
	}
	if err != nil {
		return nil, errors.Join(err, tree.Close())
	}
	return tree, nil
}

// setAttr is mount_setattr(2) on an opened tree.
func setAttr(tree *os.File, recursive bool, attr *unix.MountAttr) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	if err := unix.MountSetattr(int(tree.Fd()), "", flags, attr); err != nil {
		return &os.PathError{Op: "set mount attributes of", Path: tree.Name(), Err: err}
	}
	return nil
}
