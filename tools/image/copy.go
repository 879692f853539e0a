package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// copyTree copies what is in the directory from into the directory to, with
// owners, modes, times, extended attributes, hard links and device nodes.
// Sockets are left out: nobody can listen on a copy. Other file systems that
// are mounted below from are copied too.
func copyTree(ctx context.Context, from, to string) error {
	st, err := os.Stat(from)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return &os.PathError{Op: "copy", Path: from, Err: unix.ENOTDIR}
	}
	if from, err = filepath.EvalSymlinks(from); err == nil {
		from, err = filepath.Abs(from)
	}
	if err != nil {
		return err
	}
	if rel, err := filepath.Rel(from, to); err != nil || filepath.IsLocal(rel) {
		return fmt.Errorf("%s holds the store itself", from)
	}
	c := &copier{links: make(map[inode]string)}
	var dirs []string
	err = filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		dst := filepath.Join(to, rel)
		if d.IsDir() {
			dirs = append(dirs, rel)
		}
		if err := c.copy(ctx, path, dst); err != nil {
			return fmt.Errorf("copy %s: %w", path, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	// A directory's time changes with what is put into it.
	for i := len(dirs) - 1; i >= 0; i-- {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(from, dirs[i]), &st); err != nil {
			return err
		}
		if err := setTimes(filepath.Join(to, dirs[i]), &st); err != nil {
			return err
		}
	}
	return nil
}

type inode struct{ dev, ino uint64 }

type copier struct {
	links map[inode]string // first copy of a file with several names
}

func (c *copier) copy(ctx context.Context, src, dst string) error {
	var st unix.Stat_t
	if err := unix.Lstat(src, &st); err != nil {
		return err
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		key := inode{st.Dev, st.Ino}
		if first, ok := c.links[key]; ok {
			return os.Link(first, dst)
		}
		c.links[key] = dst
	}
	var err error
	switch kind {
	case unix.S_IFDIR:
		err = os.Mkdir(dst, 0o700)
		if errors.Is(err, fs.ErrExist) { // the root of the new tree
			err = nil
		}
	case unix.S_IFREG:
		err = copyFile(ctx, src, dst)
	case unix.S_IFLNK:
		var target string
		if target, err = os.Readlink(src); err == nil {
			err = os.Symlink(target, dst)
		}
	case unix.S_IFSOCK:
		return nil
	default:
		err = unix.Mknod(dst, st.Mode, int(st.Rdev))
	}
	if err != nil {
		return err
	}
	if err := os.Lchown(dst, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	// After the owner: chown(2) takes setuid bits and capabilities away.
	if kind != unix.S_IFLNK {
		if err := unix.Chmod(dst, st.Mode&^unix.S_IFMT); err != nil {
			return err
		}
	}
	if err := copyXattrs(src, dst); err != nil {
		return err
	}
	return setTimes(dst, &st)
}

// copyFile shares the blocks where both lie on one btrfs, else copies.
func copyFile(ctx context.Context, src, dst string) (retErr error) {
	in, err := os.OpenFile(src, unix.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() { retErr = errors.Join(retErr, out.Close()) }()
	if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) == nil {
		return nil
	}
	return copyData(ctx, in, out)
}

// maxCopy is how many bytes are copied before ctx is looked at again.
const maxCopy = 16 << 20

// copyData copies what is no hole (lseek(2), SEEK_DATA). What has no size may
// have content all the same: files of the kernel's own.
func copyData(ctx context.Context, in, out *os.File) error {
	st, err := in.Stat()
	if err != nil {
		return err
	}
	size := st.Size()
	if size == 0 {
		_, err := io.Copy(out, in)
		return err
	}
	for next := int64(0); next < size; {
		from, err := in.Seek(next, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // the rest is a hole
		}
		to := size
		if err == nil {
			to, err = in.Seek(from, unix.SEEK_HOLE)
		} else if errors.Is(err, unix.EINVAL) { // a file system that knows none
			from, err = next, nil
		}
		if err != nil {
			return err
		}
		if err := copyRange(ctx, in, out, from, to); err != nil {
			return err
		}
		next = to
	}
	return out.Truncate(size)
}

func copyRange(ctx context.Context, in, out *os.File, from, to int64) error {
	for _, f := range []*os.File{in, out} {
		if _, err := f.Seek(from, io.SeekStart); err != nil {
			return err
		}
	}
	for from < to {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.CopyN(out, in, min(maxCopy, to-from))
		from += n
		if errors.Is(err, io.EOF) {
			return nil // somebody has cut it meanwhile
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func copyXattrs(src, dst string) error {
	size, err := unix.Llistxattr(src, nil)
	if errors.Is(err, unix.ENOTSUP) || err == nil && size == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	names := make([]byte, size)
	if size, err = unix.Llistxattr(src, names); err != nil {
		return err
	}
	for names = names[:size]; len(names) > 0; {
		name := unix.ByteSliceToString(names)
		names = names[len(name)+1:]
		value := make([]byte, 64<<10) // XATTR_SIZE_MAX
		n, err := unix.Lgetxattr(src, name, value)
		if err == nil {
			err = unix.Lsetxattr(dst, name, value[:n], 0)
		}
		if err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOTSUP) {
			return fmt.Errorf("extended attribute %q: %w", name, err)
		}
	}
	return nil
}

func setTimes(path string, st *unix.Stat_t) error {
	times := []unix.Timespec{st.Atim, st.Mtim}
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, times, unix.AT_SYMLINK_NOFOLLOW)
}
