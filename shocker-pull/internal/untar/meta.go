package untar

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const xattrPrefix = "SCHILY.xattr."

// meta is what an entry has besides its content.
type meta struct {
	uid, gid int
	mode     uint32 // permissions with setuid, setgid and sticky
	times    [2]unix.Timespec
	xattrs   map[string]string
}

func metadata(h *tar.Header) (*meta, error) {
	if h.Uid < 0 || h.Uid > maxID || h.Gid < 0 || h.Gid > maxID {
		return nil, fmt.Errorf("%w: owner %d:%d", ErrEntry, h.Uid, h.Gid)
	}
	m := &meta{uid: h.Uid, gid: h.Gid, mode: uint32(h.Mode) & 0o7777}
	access := h.AccessTime
	if access.IsZero() {
		access = h.ModTime
	}
	m.times = [2]unix.Timespec{timespec(access), timespec(h.ModTime)}
	for key, value := range h.PAXRecords {
		if name, ok := strings.CutPrefix(key, xattrPrefix); ok && !foreign(name) {
			if m.xattrs == nil {
				m.xattrs = make(map[string]string)
			}
			m.xattrs[name] = value
		}
	}
	return m, nil
}

// foreign says whether an extended attribute is not the file's own: labels
// and hashes are for the host's policy to give, an overlay's marks would change
// what the tree is if it became the lower one of an overlay.
func foreign(name string) bool {
	switch name {
	case "security.selinux", "security.apparmor", "security.SMACK64", "security.ima", "security.evm", "system.nfs4_acl":
		return true
	}
	return strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.")
}

// timespec keeps times that do not fit into nanoseconds since 1970.
func timespec(t time.Time) unix.Timespec {
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

func device(h *tar.Header) (mode uint32, dev int, err error) {
	switch h.Typeflag {
	case tar.TypeFifo:
		return unix.S_IFIFO | 0o600, 0, nil
	case tar.TypeChar:
		mode = unix.S_IFCHR | 0o600
	default:
		mode = unix.S_IFBLK | 0o600
	}
	const maxMajor, maxMinor = 1<<12 - 1, 1<<20 - 1 // of Linux's dev_t
	if h.Devmajor < 0 || h.Devmajor > maxMajor || h.Devminor < 0 || h.Devminor > maxMinor {
		return 0, 0, fmt.Errorf("%w: device %d:%d", ErrEntry, h.Devmajor, h.Devminor)
	}
	return mode, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))), nil
}

// apply sets the metadata of an open file: the owner first, since chown(2)
// takes setuid bits and capabilities away, and the times last.
func (m *meta) apply(fd int) error {
	if m.uid != 0 || m.gid != 0 {
		if err := unix.Fchown(fd, m.uid, m.gid); err != nil {
			return os.NewSyscallError("fchown", err)
		}
	}
	if err := unix.Fchmod(fd, m.mode); err != nil {
		return os.NewSyscallError("fchmod", err)
	}
	for name, value := range m.xattrs {
		if err := xattrError(name, unix.Fsetxattr(fd, name, []byte(value), 0)); err != nil {
			return err
		}
	}
	return futimens(fd, &m.times)
}

// applyAt does the same for a link or a device, which is not opened.
func (m *meta) applyAt(dirfd int, name string, chmod bool) error {
	if err := unix.Fchownat(dirfd, name, m.uid, m.gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return os.NewSyscallError("fchownat", err)
	}
	if chmod {
		// The directory's descriptor stands before the name, and what has
		// just been made there is no link.
		if err := unix.Fchmodat(dirfd, name, m.mode, 0); err != nil {
			return os.NewSyscallError("fchmodat", err)
		}
	}
	for key, value := range m.xattrs {
		path := fmt.Sprintf("/proc/self/fd/%d/%s", dirfd, name)
		if err := xattrError(key, unix.Lsetxattr(path, key, []byte(value), 0)); err != nil {
			return err
		}
	}
	if err := unix.UtimesNanoAt(dirfd, name, m.times[:], unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return os.NewSyscallError("utimensat", err)
	}
	return nil
}

// xattrError lets pass what this file system or kernel does not have: labels
// of a security module that is not there.
func xattrError(name string, err error) error {
	if err == nil || errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	return fmt.Errorf("extended attribute %q: %w", name, err)
}

// applyDir sets the metadata of a directory; its times come at the end.
func (x *extractor) applyDir(name string, dir *os.File, m *meta) error {
	fd := int(dir.Fd())
	if err := unix.Fchown(fd, m.uid, m.gid); err != nil {
		return os.NewSyscallError("fchown", err)
	}
	if err := m.apply(fd); err != nil {
		return err
	}
	ino, err := inode(dir)
	if err != nil {
		return err
	}
	x.dirs[ino] = dirTimes{name, m.times}
	return nil
}

// setTimes sets the times of the layer's directories, as far as they are
// still those.
func (x *extractor) setTimes() error {
	for ino, d := range x.dirs {
		f, err := x.open(d.name)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			continue // replaced by a later entry
		}
		if err != nil {
			return err
		}
		now, err := inode(f)
		if err == nil && now == ino {
			err = futimens(int(f.Fd()), &d.times)
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("layer entry %q: %w", d.name, err)
		}
	}
	return nil
}
