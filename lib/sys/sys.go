// Package sys is the thin layer over system calls that Shocker's packages
// share: EINTR is retried, and every error names the call and the path.
package sys

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Retry calls f until it returns something other than EINTR.
func Retry(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// OpenBeneath opens path inside the directory root as if root were "/":
// absolute links and ".." stay inside, and links of /proc are refused
// (openat2(2) with RESOLVE_IN_ROOT, kernel 5.6).
func OpenBeneath(root *os.File, path string, flags int, mode uint32) (*os.File, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Mode:    uint64(mode),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	var fd int
	err := Retry(func() (err error) {
		fd, err = unix.Openat2(int(root.Fd()), path, &how)
		return err
	})
	// EAGAIN: a rename or mount somewhere raced with the ".." of the path.
	for try := 0; errors.Is(err, unix.EAGAIN) && try < 64; try++ {
		fd, err = unix.Openat2(int(root.Fd()), path, &how)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: root.Name() + ":" + path, Err: err}
	}
	return os.NewFile(uintptr(fd), root.Name()+":"+path), nil
}

// OpenRegular opens a regular file inside the directory root for reading, as
// OpenBeneath does. It looks before it opens: to open a device has effects (a
// watchdog starts, a tape rewinds), and to open a FIFO may take for ever.
func OpenRegular(root *os.File, path string) (*os.File, error) {
	f, err := OpenBeneath(root, path, unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	return openIfRegular(f)
}

// OpenRegularFile is OpenRegular for a path of the host.
func OpenRegularFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	return openIfRegular(f)
}

// openIfRegular opens for reading what was opened with O_PATH, and closes that.
func openIfRegular(f *os.File) (*os.File, error) {
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, &os.PathError{Op: "open", Path: f.Name(), Err: ErrNotRegular}
	}
	var fd int
	err = Retry(func() (err error) {
		fd, err = unix.Open("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: f.Name(), Err: err}
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// OpenDir opens a directory of the host as a root for OpenBeneath.
func OpenDir(path string) (*os.File, error) {
	return os.OpenFile(path, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// Connect connects to the unix socket of a kind (SOCK_STREAM, SOCK_DGRAM) at
// path, which may begin with @ for an abstract one. Who listens there and accepts
// nobody, or reads nothing of what is sent later, is waited for so long at most
// (unix(7), SO_SNDTIMEO).
func Connect(kind int, path string, patience time.Duration) (_ int, retErr error) {
	if fits := len(unix.RawSockaddrUnix{}.Path) - 1; len(path) > fits {
		return -1, &os.PathError{Op: "connect to", Path: path, Err: fmt.Errorf("the path of a socket has %d bytes at most", fits)}
	}
	fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	defer func() {
		if retErr != nil {
			retErr = errors.Join(retErr, unix.Close(fd))
		}
	}()
	limit := unix.NsecToTimeval(patience.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
		return -1, os.NewSyscallError("setsockopt", err)
	}
	err = Retry(func() error { return unix.Connect(fd, &unix.SockaddrUnix{Name: path}) })
	if errors.Is(err, unix.EAGAIN) {
		err = fmt.Errorf("nobody has accepted within %v", patience)
	}
	if err != nil {
		return -1, &os.PathError{Op: "connect to", Path: path, Err: err}
	}
	return fd, nil
}

// Mount calls mount(2).
func Mount(source, target, fstype string, flags uintptr, data string) error {
	err := Retry(func() error { return unix.Mount(source, target, fstype, flags, data) })
	if err != nil {
		return &os.PathError{Op: "mount", Path: target, Err: err}
	}
	return nil
}

// Unmount takes the topmost mount off target, at once for everybody and lazily
// for who still uses it. It does not follow a symbolic link, and it is no
// error if nothing is mounted there.
func Unmount(target string) error {
	err := Retry(func() error { return unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) })
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "unmount", Path: target, Err: err}
	}
	return nil
}

// IsMountPoint tells whether something is mounted on path (statx(2) with
// STATX_ATTR_MOUNT_ROOT, kernel 5.8). A path that is not there is none.
func IsMountPoint(path string) (bool, error) {
	var st unix.Statx_t
	err := Retry(func() error {
		return unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, 0, &st)
	})
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, &os.PathError{Op: "statx", Path: path, Err: err}
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// Flock takes a lock on f (flock(2): LOCK_EX or LOCK_SH, with LOCK_NB to
// fail with EWOULDBLOCK instead of waiting).
func Flock(f *os.File, how int) error {
	err := Retry(func() error { return unix.Flock(int(f.Fd()), how) })
	if err != nil {
		return &os.PathError{Op: "lock", Path: f.Name(), Err: err}
	}
	return nil
}

// IsAt says whether an open file is the one at path, behind links: it can have
// been renamed or removed while a lock on it was waited for.
func IsAt(f *os.File, path string) (bool, error) {
	var held, named unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &held); err != nil {
		return false, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	err := unix.Stat(path, &named)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return held.Dev == named.Dev && held.Ino == named.Ino, nil
}

// NewPrefix begins the name of a file that WriteFile has not finished.
const NewPrefix = ".new-"

// WriteFile replaces path in one step: a reader sees the old bytes or the
// new, also after a kill. With sync it survives a power cut as well.
func WriteFile(path string, data []byte, mode os.FileMode, sync bool) (retErr error) {
	f, err := os.CreateTemp(dir(path), NewPrefix+"*")
	if err != nil {
		return err
	}
	defer func() {
		if retErr != nil {
			retErr = errors.Join(retErr, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil && sync {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Claim makes the file path with its content in one step, or fails with
// fs.ErrExist: of several that claim it at once one gets it, nobody sees it
// without the content, and a kill leaves nothing (O_TMPFILE, open(2)).
func Claim(path, content string) error {
	f, err := os.OpenFile(dir(path), unix.O_TMPFILE|unix.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	if err == nil {
		from := "/proc/self/fd/" + strconv.Itoa(int(f.Fd()))
		if err = unix.Linkat(unix.AT_FDCWD, from, unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW); err != nil {
			err = &os.PathError{Op: "claim", Path: path, Err: err}
		}
	}
	return errors.Join(err, f.Close())
}

func dir(path string) string {
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] == '/' {
			return path[:i+1]
		}
	}
	return "."
}
