package untar

import (
	"context"
	"errors"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/sys"
)

// extractor is the state of one layer.
type extractor struct {
	ctx   context.Context
	root  *os.File
	limit Limits
	buf   []byte

	// last is the directory of the entry before, which most entries share.
	// What may change where a path leads drops it.
	last     *directory
	lastName string

	// A whiteout hides what lower layers have, and never what this layer
	// has, whichever comes first. So this layer's entries are remembered, and
	// the directories, by inode, that hold any. The lowest layer has nothing
	// below it and need not (made is nil).
	made map[entry]bool
	kept map[uint64]bool

	// Making an entry changes the times of its directory: they are set last,
	// to what the layer says or else to what they were. By inode.
	dirs map[uint64]dirTimes
}

type entry struct {
	dir  uint64 // inode
	name string
}

type directory struct {
	file *os.File
	ino  uint64
}

type dirTimes struct {
	name  string
	times [2]unix.Timespec
}

func (x *extractor) buffer() []byte {
	if x.buf == nil {
		x.buf = make([]byte, 256<<10)
	}
	return x.buf
}

// forget closes the remembered directory.
func (x *extractor) forget() {
	if x.last != nil {
		x.last.file.Close()
		x.last = nil
	}
}

// open opens a directory of the tree. Links are followed within the root, as
// a layer may have lib/x where a lower one has lib -> usr/lib.
func (x *extractor) open(name string) (*os.File, error) {
	if name == "" {
		name = "."
	}
	return sys.OpenBeneath(x.root, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
}

func openDir(dirfd int, name string) (*os.File, error) {
	fd, err := unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

func stat(f *os.File) (st unix.Stat_t, err error) {
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return st, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return st, nil
}

func inode(f *os.File) (uint64, error) {
	st, err := stat(f)
	return st.Ino, err
}

// parent opens the directory of an entry, and makes those on the way that the
// layer does not name: 0755, of root, and as old as the entry.
func (x *extractor) parent(name string, times [2]unix.Timespec) (*directory, error) {
	if x.last != nil && x.lastName == name {
		return x.last, nil
	}
	f, err := x.open(name)
	if errors.Is(err, unix.ENOENT) {
		f, err = x.makeParents(name, times, maxLinks)
	}
	if err != nil {
		return nil, err
	}
	st, err := stat(f)
	if err == nil {
		if _, ok := x.dirs[st.Ino]; !ok {
			x.dirs[st.Ino] = dirTimes{name, [2]unix.Timespec{st.Atim, st.Mtim}}
		}
		err = x.keep(f, st.Ino)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	x.forget()
	x.last, x.lastName = &directory{f, st.Ino}, name
	return x.last, nil
}

// maxLinks is how many symbolic links one path may lead through, as in
// path_resolution(7).
const maxLinks = 40

// makeParents opens a directory that is not there, after it has made it and
// those above it. A link that leads to nothing yet, within the root, is
// followed: lib -> usr/lib may come before usr/lib.
func (x *extractor) makeParents(name string, times [2]unix.Timespec, links int) (*os.File, error) {
	above, base := path.Split(name)
	above = strings.TrimSuffix(above, "/")
	parent, err := x.open(above)
	if errors.Is(err, unix.ENOENT) {
		parent, err = x.makeParents(above, times, links)
	}
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	if base == "" || base == "." || base == ".." { // of a link's target
		return x.open(name)
	}
	fd := int(parent.Fd())
	err = unix.Mkdirat(fd, base, 0o755)
	if errors.Is(err, unix.EEXIST) && links > 0 {
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(fd, base, buf)
		if err != nil {
			return nil, &os.PathError{Op: "follow", Path: name, Err: err}
		}
		target := string(buf[:n])
		if !path.IsAbs(target) {
			target = above + "/" + target
		}
		return x.makeParents(strings.TrimPrefix(target, "/"), times, links-1)
	}
	if err == nil {
		err = unix.Fchmodat(fd, base, 0o755, 0) // whatever the umask
	}
	if err != nil {
		return nil, &os.PathError{Op: "make directory", Path: name, Err: err}
	}
	d, err := openDir(fd, base)
	if err != nil {
		return nil, err
	}
	ino, err := inode(d)
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	x.dirs[ino] = dirTimes{name, times}
	return d, nil
}

// keep remembers that a directory, and so those above it, hold entries of
// this layer.
func (x *extractor) keep(dir *os.File, ino uint64) error {
	if x.made == nil || x.kept[ino] {
		return nil
	}
	top, err := inode(x.root)
	if err != nil {
		return err
	}
	up := dir
	for !x.kept[ino] {
		x.kept[ino] = true
		if ino == top {
			break
		}
		fd, err := unix.Openat(int(up.Fd()), "..", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if up != dir {
			up.Close()
		}
		if err != nil {
			return &os.PathError{Op: "open", Path: "..", Err: err}
		}
		up = os.NewFile(uintptr(fd), "..")
		if ino, err = inode(up); err != nil {
			up.Close()
			return err
		}
	}
	if up != dir {
		return up.Close()
	}
	return nil
}

// hide removes what lower layers have under that name.
func (x *extractor) hide(dir *directory, name string) error {
	if x.made == nil {
		return nil
	}
	var st unix.Stat_t
	err := unix.Fstatat(int(dir.file.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	return x.hideEntry(dir.file, dir.ino, name, &st)
}

func (x *extractor) hideEntry(dir *os.File, ino uint64, name string, st *unix.Stat_t) error {
	ours := x.made[entry{ino, name}]
	if st.Mode&unix.S_IFMT == unix.S_IFDIR && (ours || x.kept[st.Ino]) {
		d, err := openDir(int(dir.Fd()), name)
		if err != nil {
			return err
		}
		return errors.Join(x.removeLower(d), d.Close())
	}
	if ours {
		return nil
	}
	return x.remove(dir, name)
}

// removeLower removes what lower layers have in a directory.
func (x *extractor) removeLower(dir *os.File) error {
	if x.made == nil {
		return nil
	}
	ino, err := inode(dir)
	if err != nil {
		return err
	}
	names, err := list(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if err := x.hideEntry(dir, ino, name, &st); err != nil {
			return err
		}
	}
	return nil
}

// remove removes an entry with everything below it.
func (x *extractor) remove(dir *os.File, name string) error {
	x.forgetUnless(dir)
	return removeAll(dir, name)
}

// forgetUnless drops the remembered directory, which may be below what is
// removed, unless it is the one that is worked on.
func (x *extractor) forgetUnless(dir *os.File) {
	if x.last != nil && x.last.file != dir {
		x.forget()
	}
}

func removeAll(dir *os.File, name string) error {
	fd := int(dir.Fd())
	err := unix.Unlinkat(fd, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) {
		return &os.PathError{Op: "remove", Path: name, Err: err}
	}
	if unix.Unlinkat(fd, name, unix.AT_REMOVEDIR) == nil {
		return nil
	}
	d, err := openDir(fd, name)
	if err != nil {
		return err
	}
	names, err := list(d)
	for _, n := range names {
		if err == nil {
			err = removeAll(d, n)
		}
	}
	if err = errors.Join(err, d.Close()); err != nil {
		return err
	}
	if err := unix.Unlinkat(fd, name, unix.AT_REMOVEDIR); err != nil {
		return &os.PathError{Op: "remove", Path: name, Err: err}
	}
	return nil
}

// list returns the names in a directory, whatever was read of it before.
func list(dir *os.File) ([]string, error) {
	if _, err := dir.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return dir.Readdirnames(-1)
}
