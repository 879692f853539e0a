package container

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/sys"
)

// tmpfs plans a tmpfs. Unless it says otherwise it has the mode of the directory
// that it covers. With the option tmpcopyup it begins with that one's content,
// and the parent makes it: a.tree is set then.
func (m *mounts) tmpfs(a *attachment, o *mountOptions) error {
	covered, onDisk, err := m.open(a.dest)
	if err != nil {
		return err
	}
	if covered == nil {
		return nil
	}
	defer covered.Close()
	st, err := covered.Stat()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(o.data, func(d string) bool { return strings.HasPrefix(d, "mode=") }) {
		a.fs.data = append([]string{fmt.Sprintf("mode=%o", st.Sys().(*syscall.Stat_t).Mode&0o7777)}, o.data...)
	}
	if !o.copyUp {
		return nil
	}
	return m.copyUp(a, o, covered, onDisk)
}

// copyUp makes the tmpfs and fills it.
func (m *mounts) copyUp(a *attachment, o *mountOptions, from *os.File, onDisk bool) (err error) {
	if a.tree, err = newMount("tmpfs", "tmpfs", a.fs.data, 0); err != nil {
		return err
	}
	c := copier{maps: m.maps, onDisk: onDisk}
	if err := c.directory(from, a.tree); err != nil {
		return fmt.Errorf("copy up what it covers: %w", err)
	}
	if err := c.attributes(int(from.Fd()), int(a.tree.Fd())); err != nil {
		return err
	}
	if err := setAttr(a.tree, false, &unix.MountAttr{Attr_set: o.set}); err != nil || o.propagation == 0 {
		return err
	}
	return setAttr(a.tree, false, &unix.MountAttr{Propagation: o.propagation})
}

// open opens the directory at a path before anything is mounted there, as far
// as the parent can see it; nil is none. onDisk tells that its owners count from
// 0.
func (m *mounts) open(dest string) (_ *os.File, onDisk bool, _ error) {
	p, err := resolvePlace(m.root, dest, m.covered)
	if err != nil {
		return nil, false, err
	}
	onDisk = m.onDisk
	root, path := m.root, p.String()
	if on := m.on(path); on != nil {
		onDisk = on.mapped
		root, path = on.tree, strings.TrimPrefix(strings.TrimPrefix(path, on.place.String()), "/")
		if root == nil {
			return nil, false, nil // it is new, and empty
		}
	}
	if path == "" {
		path = "."
	}
	// Only a directory: to open a device of an image has effects.
	f, err := sys.OpenBeneath(root, path, unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil, false, nil
	}
	return f, onDisk, err
}

// on is the topmost mount planned so far that a place lies on, or nil.
func (m *mounts) on(place string) *attachment {
	for _, a := range slices.Backward(m.list) {
		if a.place != nil && a.remount == nil && under(place, a.place.String()) {
			return a
		}
	}
	return nil
}

// copier copies a directory with what belongs to its files.
type copier struct {
	maps idMaps
	// onDisk says that owners count from 0, as in a root that is to be
	// id-mapped.
	onDisk bool
}

// directory copies what a directory holds into another.
func (c *copier) directory(from, to *os.File) error {
	entries, err := from.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := c.entry(from, int(to.Fd()), e.Name()); err != nil {
			return fmt.Errorf("%s: %w", e.Name(), err)
		}
	}
	return nil
}

// entry copies one file of whatever kind.
func (c *copier) entry(from *os.File, to int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(from.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if err := unix.Mkdirat(to, name, 0o700); err != nil {
			return err
		}
		in, err := unix.Openat(int(from.Fd()), name, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return c.opened(os.NewFile(uintptr(in), name), to, name, unix.O_DIRECTORY, c.directory)
	case unix.S_IFREG:
		// It may be a device by now, and what we read a disk of the host.
		in, err := sys.OpenRegular(from, name)
		if err != nil {
			return err
		}
		return c.opened(in, to, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, func(from, to *os.File) error {
			_, err := io.Copy(to, from)
			return err
		})
	case unix.S_IFLNK:
		target := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(int(from.Fd()), name, target)
		if err == nil {
			err = unix.Symlinkat(string(target[:n]), to, name)
		}
		if err != nil {
			return err
		}
	default:
		if err := unix.Mknodat(to, name, st.Mode, int(st.Rdev)); err != nil {
			return err
		}
	}
	uid, gid, err := c.owner(&st)
	if err != nil {
		return err
	}
	return unix.Fchownat(to, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
}

// opened opens the copy of a file, copies that and gives it its attributes.
func (c *copier) opened(source *os.File, to int, name string, flags int, copy func(from, to *os.File) error) (retErr error) {
	defer source.Close()
	out, err := unix.Openat(to, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	target := os.NewFile(uintptr(out), name)
	defer func() { retErr = errors.Join(retErr, target.Close()) }()
	if err := copy(source, target); err != nil {
		return err
	}
	return c.attributes(int(source.Fd()), out)
}

// attributes gives an opened file what belongs to another.
func (c *copier) attributes(from, to int) error {
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return err
	}
	uid, gid, err := c.owner(&st)
	if err != nil {
		return err
	}
	if err := unix.Fchownat(to, "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	path := fmt.Sprintf("/proc/self/fd/%d", to) // it may be opened by its path only
	if err := unix.Chmod(path, st.Mode&0o7777); err != nil {
		return err
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{st.Atim, st.Mtim}, 0)
}

// owner is whom a copy belongs to on the host.
func (c *copier) owner(st *unix.Stat_t) (uid, gid int, err error) {
	if !c.onDisk {
		return int(st.Uid), int(st.Gid), nil
	}
	return c.maps.host(st.Uid, st.Gid)
}
