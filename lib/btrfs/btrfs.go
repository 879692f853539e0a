// Package btrfs makes, lists and deletes subvolumes by the ioctls of
// btrfs-ioctl(2) and <linux/btrfs.h>; it executes no program.
package btrfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/sys"
)

var (
	// ErrNotSubvolume is a path that is not the root of a btrfs subvolume.
	ErrNotSubvolume = errors.New("not a btrfs subvolume")
	// ErrNotBtrfs is a path on another file system.
	ErrNotBtrfs = errors.New("not on btrfs")
)

// From <linux/btrfs.h>. Request numbers are _IOW and _IOR of magic 0x94.
const (
	superMagic = 0x9123683E
	rootInode  = 256 // of every subvolume

	ioctlSync          = 0x9408
	ioctlSnapCreateV2  = 0x50009417
	ioctlSubvolCreate2 = 0x50009418
	ioctlSubvolGetInfo = 0x81f8943c // kernel 4.18
	ioctlGetFlags      = 0x80089419
	ioctlSetFlags      = 0x4008941a
	ioctlSnapDestroy2  = 0x5000943f // kernel 5.7
	ioctlRootref       = 0xd000943d // kernel 4.18
	ioctlInoLookupUser = 0xd000943e // kernel 4.18

	flagReadOnly = 1 << 1
	nameMax      = 4039
)

// volArgs is struct btrfs_ioctl_vol_args_v2.
type volArgs struct {
	fd      int64
	transid uint64
	flags   uint64
	_       [4]uint64
	name    [nameMax + 1]byte
}

// subvolInfo is struct btrfs_ioctl_get_subvol_info_args.
type subvolInfo struct {
	treeID       uint64
	name         [256]byte
	parentID     uint64
	dirID        uint64
	generation   uint64
	flags        uint64
	uuid         [16]byte
	parentUUID   [16]byte
	receivedUUID [16]byte
	_            [4]uint64    // transaction ids
	_            [4][2]uint64 // times
	_            [8]uint64
}

// rootrefs is struct btrfs_ioctl_get_subvol_rootref_args.
type rootrefs struct {
	minTreeID uint64
	refs      [255]struct{ treeID, dirID uint64 }
	n         uint8
	_         [7]byte
}

// lookupArgs is struct btrfs_ioctl_ino_lookup_user_args.
type lookupArgs struct {
	dirID  uint64
	treeID uint64
	name   [256]byte
	path   [3824]byte
}

func ioctl(f *os.File, op string, request uintptr, arg unsafe.Pointer) error {
	err := sys.Retry(func() error {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(arg))
		if errno != 0 {
			return errno
		}
		return nil
	})
	if errors.Is(err, unix.ENOTTY) {
		err = ErrNotBtrfs
	}
	if err != nil {
		return &os.PathError{Op: op, Path: f.Name(), Err: err}
	}
	return nil
}

func open(path string) (*os.File, error) {
	return os.OpenFile(path, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
}

// Is says whether path lies on btrfs.
func Is(path string) (bool, error) {
	var st unix.Statfs_t
	if err := sys.Retry(func() error { return unix.Statfs(path, &st) }); err != nil {
		return false, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	return st.Type == superMagic, nil
}

// Create makes an empty subvolume, mode 0755 less the umask.
func Create(path string) error {
	return inParent(path, func(dir *os.File, name string) error {
		args := &volArgs{}
		copy(args.name[:], name)
		return named(path, ioctl(dir, "create subvolume", ioctlSubvolCreate2, unsafe.Pointer(args)))
	})
}

// Snapshot makes dst a snapshot of the subvolume src. Nested subvolumes of
// src are empty directories in it.
func Snapshot(src, dst string, readOnly bool) error {
	from, err := open(src)
	if err != nil {
		return err
	}
	defer from.Close()
	return inParent(dst, func(dir *os.File, name string) error {
		args := &volArgs{fd: int64(from.Fd())}
		if readOnly {
			args.flags = flagReadOnly
		}
		copy(args.name[:], name)
		err := ioctl(dir, "snapshot", ioctlSnapCreateV2, unsafe.Pointer(args))
		if errors.Is(err, unix.EINVAL) {
			err = fmt.Errorf("%w: %w", ErrNotSubvolume, err)
		}
		if err != nil {
			return fmt.Errorf("snapshot of %s: %w", src, named(dst, err))
		}
		return nil
	})
}

// SetReadOnly makes a subvolume read-only, or writable again.
func SetReadOnly(path string, on bool) error {
	f, err := open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var flags uint64
	if err := ioctl(f, "read flags of subvolume", ioctlGetFlags, unsafe.Pointer(&flags)); err != nil {
		return err
	}
	flags &^= flagReadOnly
	if on {
		flags |= flagReadOnly
	}
	return ioctl(f, "set flags of subvolume", ioctlSetFlags, unsafe.Pointer(&flags))
}

// UUID returns the UUID of a subvolume in the usual form.
func UUID(path string) (string, error) {
	f, err := open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := info(f)
	if err != nil {
		return "", err
	}
	u := info.uuid
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:16]), nil
}

func info(f *os.File) (*subvolInfo, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	if st.Ino != rootInode {
		return nil, &os.PathError{Op: "look up subvolume", Path: f.Name(), Err: ErrNotSubvolume}
	}
	info := &subvolInfo{}
	if err := ioctl(f, "look up subvolume", ioctlSubvolGetInfo, unsafe.Pointer(info)); err != nil {
		return nil, err
	}
	return info, nil
}

// Delete deletes a subvolume and those nested in it, found by the tree of
// subvolumes and not by walking files. A running program would lose its root:
// the kernel does not refuse, so the caller has to know.
func Delete(path string) error {
	f, err := open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := info(f); err != nil {
		return err
	}
	return inParent(path, func(dir *os.File, name string) error {
		args := &volArgs{}
		copy(args.name[:], name)
		err := ioctl(dir, "delete subvolume", ioctlSnapDestroy2, unsafe.Pointer(args))
		if errors.Is(err, unix.ENOTEMPTY) {
			if err = deleteNested(f); err == nil {
				err = ioctl(dir, "delete subvolume", ioctlSnapDestroy2, unsafe.Pointer(args))
			}
		}
		return named(path, err)
	})
}

// deleteByID is the flag BTRFS_SUBVOL_SPEC_BY_ID: args.name holds the id.
const deleteByID = 1 << 4

// deleteNested deletes the subvolumes below the one that f is the root of.
func deleteNested(f *os.File) error {
	for {
		refs := &rootrefs{}
		err := ioctl(f, "list subvolumes", ioctlRootref, unsafe.Pointer(refs))
		more := errors.Is(err, unix.EOVERFLOW)
		if err != nil && !more {
			return err
		}
		for _, ref := range refs.refs[:refs.n] {
			args := &volArgs{flags: deleteByID}
			*(*uint64)(unsafe.Pointer(&args.name[0])) = ref.treeID
			err := ioctl(f, "delete nested subvolume", ioctlSnapDestroy2, unsafe.Pointer(args))
			if errors.Is(err, unix.ENOTEMPTY) {
				if err = deleteBelow(f, ref.dirID, ref.treeID); err == nil {
					err = ioctl(f, "delete nested subvolume", ioctlSnapDestroy2, unsafe.Pointer(args))
				}
			}
			if err != nil {
				return err
			}
		}
		if !more {
			return nil
		}
	}
}

// deleteBelow deletes what is nested in the subvolume treeID, which lies in the
// directory dirID of the subvolume f.
func deleteBelow(f *os.File, dirID, treeID uint64) error {
	args := &lookupArgs{dirID: dirID, treeID: treeID}
	if err := ioctl(f, "look up nested subvolume", ioctlInoLookupUser, unsafe.Pointer(args)); err != nil {
		return err
	}
	path := unix.ByteSliceToString(args.path[:]) + unix.ByteSliceToString(args.name[:])
	nested, err := sys.OpenBeneath(f, path, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer nested.Close()
	return deleteNested(nested)
}

// SyncFS writes out everything of the file system that path lies on.
func SyncFS(path string) error {
	f, err := open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return ioctl(f, "sync", ioctlSync, nil)
}

// inParent calls f with the opened parent directory of path and the last
// element.
func inParent(path string, f func(dir *os.File, name string) error) error {
	name := filepath.Base(path)
	if len(name) > 255 {
		return &os.PathError{Op: "subvolume", Path: path, Err: unix.ENAMETOOLONG}
	}
	dir, err := os.OpenFile(filepath.Dir(path), unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	return f(dir, name)
}

// named puts the subvolume's path in the place of its parent's.
func named(path string, err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		pe.Path = path
	}
	return err
}
