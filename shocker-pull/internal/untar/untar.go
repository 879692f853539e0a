// Package untar unpacks an image layer into a directory tree, as the OCI image
// spec's layer document says. The layer is hostile: every directory is opened
// beneath the root's descriptor, and every entry is made by its last name in
// such a directory, without following a link.
package untar

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Limits of a layer. The largest images in use have some hundred thousand
// entries and tens of gigabytes.
type Limits struct {
	Entries int
	Bytes   int64 // of the unpacked tar, and of all files together with their holes
}

// Default limits. An entry costs about 150 bytes of memory.
var Default = Limits{Entries: 2_000_000, Bytes: 128 << 30}

const (
	maxPath  = unix.PathMax - 1
	maxDepth = 256
	maxName  = 255
	// 2^32-1 means "no change" to chown(2).
	maxID = 1<<32 - 2

	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// Extract unpacks the tar stream r into the tree whose root directory is
// given, on top of what lower layers have left in it. It reads r to its end.
func Extract(ctx context.Context, root *os.File, r io.Reader, limits Limits) error {
	x := &extractor{
		ctx:   ctx,
		root:  root,
		dirs:  make(map[uint64]dirTimes),
		limit: limits,
	}
	defer x.forget()
	below, err := list(root)
	if err != nil {
		return err
	}
	if len(below) > 0 {
		x.made = make(map[entry]bool)
		x.kept = make(map[uint64]bool)
	}
	counted := &counter{ctx: ctx, r: r, left: limits.Bytes}
	tr := tar.NewReader(counted)
	for n := 0; ; n++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read layer: %w", err)
		}
		if n == limits.Entries {
			return fmt.Errorf("layer of more than %d entries %w", limits.Entries, ErrLimit)
		}
		if err := x.one(h, tr); err != nil {
			return fmt.Errorf("layer entry %q: %w", h.Name, err)
		}
	}
	if err := x.setTimes(); err != nil {
		return err
	}
	// What follows the end of the archive counts for the digest.
	_, err = io.Copy(io.Discard, counted)
	return err
}

// counter ends a stream that is too long, or not wanted any more.
type counter struct {
	ctx  context.Context
	r    io.Reader
	left int64
}

func (c *counter) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	n, err := c.r.Read(p)
	if c.left -= int64(n); c.left < 0 {
		return n, fmt.Errorf("layer's size %w", ErrLimit)
	}
	return n, err
}

// clean turns the name of an entry into a path relative to the root, "." for
// the root itself.
func clean(name string) (string, error) {
	if strings.ContainsRune(name, 0) {
		return "", fmt.Errorf("%w: NUL in a name", ErrEntry)
	}
	parts := strings.Split(name, "/")
	depth := 0
	for _, p := range parts {
		switch {
		case p == "..":
			return "", ErrClimbs
		case len(p) > maxName:
			return "", fmt.Errorf("length of a name %w", ErrLimit)
		case p != "" && p != ".":
			depth++
		}
	}
	if depth > maxDepth || len(name) > maxPath {
		return "", fmt.Errorf("depth or length of its path %w", ErrLimit)
	}
	return strings.TrimPrefix(path.Clean("/"+name), "/"), nil
}

// one unpacks one entry.
func (x *extractor) one(h *tar.Header, content io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := clean(h.Name)
	if err != nil {
		return err
	}
	meta, err := metadata(h)
	if err != nil {
		return err
	}
	if name == "" {
		if h.Typeflag != tar.TypeDir {
			return fmt.Errorf("%w: the root is a directory", ErrEntry)
		}
		return x.applyDir(".", x.root, meta)
	}
	dirName, base := path.Split(name)
	parent, err := x.parent(strings.TrimSuffix(dirName, "/"), meta.times)
	if err != nil {
		return err
	}
	if base == opaque {
		return x.removeLower(parent.file)
	}
	if hidden, ok := strings.CutPrefix(base, whiteout); ok {
		if hidden == "" || hidden == "." || hidden == ".." {
			return fmt.Errorf("%w: a whiteout of nothing", ErrEntry)
		}
		return x.hide(parent, hidden)
	}
	if err := x.make(parent, name, base, h, meta, content); err != nil {
		return err
	}
	if x.made != nil {
		x.made[entry{parent.ino, base}] = true
	}
	return nil
}

// make makes the entry, replacing what is there.
func (x *extractor) make(dir *directory, name, base string, h *tar.Header, meta *meta, content io.Reader) error {
	fd := int(dir.file.Fd())
	switch h.Typeflag {
	case tar.TypeDir:
		return x.makeDir(dir, name, base, meta)
	case tar.TypeReg, tar.TypeRegA, tar.TypeCont, tar.TypeGNUSparse: //nolint:staticcheck // old archives have it
		return x.makeFile(dir, base, h, meta, content)
	case tar.TypeSymlink:
		if h.Linkname == "" || strings.ContainsRune(h.Linkname, 0) {
			return fmt.Errorf("%w: its target is empty or has a NUL", ErrEntry)
		}
		err := x.replacing(dir, base, func() error { return unix.Symlinkat(h.Linkname, fd, base) })
		if err != nil {
			return err
		}
		return meta.applyAt(fd, base, false)
	case tar.TypeLink:
		return x.makeLink(dir, base, h.Linkname)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		mode, dev, err := device(h)
		if err != nil {
			return err
		}
		if err := x.replacing(dir, base, func() error { return unix.Mknodat(fd, base, mode, dev) }); err != nil {
			return err
		}
		return meta.applyAt(fd, base, true)
	}
	return fmt.Errorf("%w: type %q", ErrEntry, h.Typeflag)
}

// replacing calls create, and again after it has removed what is in the way.
func (x *extractor) replacing(dir *directory, base string, create func() error) error {
	err := create()
	if errors.Is(err, unix.EEXIST) {
		if err := x.remove(dir.file, base); err != nil {
			return err
		}
		err = create()
	}
	return err
}

func (x *extractor) makeFile(dir *directory, base string, h *tar.Header, meta *meta, content io.Reader) (retErr error) {
	if x.limit.Bytes -= h.Size; x.limit.Bytes < 0 {
		return fmt.Errorf("layer's files together: size %w", ErrLimit)
	}
	var fd int
	err := x.replacing(dir, base, func() (err error) {
		fd, err = unix.Openat(int(dir.file.Fd()), base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), base)
	defer func() { retErr = errors.Join(retErr, f.Close()) }()
	if sparse(h) {
		err = x.copySparse(f, content)
	} else {
		_, err = io.CopyBuffer(onlyWriter{f}, content, x.buffer())
	}
	if err != nil {
		return err
	}
	return meta.apply(fd)
}

// onlyWriter hides ReadFrom, which would not use our buffer.
type onlyWriter struct{ io.Writer }

// makeDir makes a directory, or takes on the one that is there with what is
// in it. A link in its place is replaced, as by other engines.
func (x *extractor) makeDir(dir *directory, name, base string, meta *meta) error {
	fd := int(dir.file.Fd())
	err := unix.Mkdirat(fd, base, 0o700)
	if errors.Is(err, unix.EEXIST) {
		var st unix.Stat_t
		if err := unix.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			if err := x.remove(dir.file, base); err != nil {
				return err
			}
			err = unix.Mkdirat(fd, base, 0o700)
		} else {
			err = nil
		}
	}
	if err != nil {
		return err
	}
	d, err := openDir(fd, base)
	if err != nil {
		return err
	}
	defer d.Close()
	return x.applyDir(name, d, meta)
}

// makeLink makes another name of a file in the tree.
func (x *extractor) makeLink(dir *directory, base, target string) error {
	name, err := clean(target)
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", target, err)
	}
	targetDir, targetBase := path.Split(name)
	if targetBase == "" {
		return fmt.Errorf("hard link to %q: %w", target, ErrEntry)
	}
	from, err := x.open(strings.TrimSuffix(targetDir, "/"))
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", target, err)
	}
	defer from.Close()
	same, err := sameFile(from, targetBase, dir.file, base)
	if same || err != nil {
		return err
	}
	err = x.replacing(dir, base, func() error {
		return unix.Linkat(int(from.Fd()), targetBase, int(dir.file.Fd()), base, 0)
	})
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", target, err)
	}
	return nil
}

// sameFile says whether both names lead to one file already: then there is
// nothing to do, and removing the one in the way could remove the last.
func sameFile(dir1 *os.File, name1 string, dir2 *os.File, name2 string) (bool, error) {
	var a, b unix.Stat_t
	if err := unix.Fstatat(int(dir1.Fd()), name1, &a, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, fmt.Errorf("hard link to %q: %w", name1, err)
	}
	err := unix.Fstatat(int(dir2.Fd()), name2, &b, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return a.Ino == b.Ino && a.Dev == b.Dev, err
}
