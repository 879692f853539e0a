package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// node is a device of the minimal /dev.
type node struct {
	path         string // in the container
	kind         uint32 // S_IFCHR, S_IFBLK, S_IFIFO, S_IFREG
	major, minor uint32
	mode         uint32
	uid, gid     uint32 // in the container
}

// defaultNodes are there whatever the record says (OCI runtime-spec,
// config-linux.md, "Default Devices").
var defaultNodes = []node{
	{path: "/dev/null", kind: unix.S_IFCHR, major: 1, minor: 3, mode: 0o666},
	{path: "/dev/zero", kind: unix.S_IFCHR, major: 1, minor: 5, mode: 0o666},
	{path: "/dev/full", kind: unix.S_IFCHR, major: 1, minor: 7, mode: 0o666},
	{path: "/dev/random", kind: unix.S_IFCHR, major: 1, minor: 8, mode: 0o666},
	{path: "/dev/urandom", kind: unix.S_IFCHR, major: 1, minor: 9, mode: 0o666},
	{path: "/dev/tty", kind: unix.S_IFCHR, major: 5, minor: 0, mode: 0o666},
}

// console is where the slave of the program's terminal is mounted.
var console = node{path: "/dev/console", kind: unix.S_IFREG, mode: 0o620}

var devLinks = [][2]string{
	{"fd", "/proc/self/fd"},
	{"stdin", "/proc/self/fd/0"},
	{"stdout", "/proc/self/fd/1"},
	{"stderr", "/proc/self/fd/2"},
	{"ptmx", "pts/ptmx"},
}

// makeDev makes the container's /dev: a tmpfs, not attached anywhere yet, with
// those of the nodes that are below it. It is made by the parent, in
// the initial user namespace, since device nodes of a tmpfs that belongs to
// another one cannot be opened. Its files belong to the container's root; they
// are given to it by chown, as tmpfs takes no id map before kernel 6.3.
func makeDev(o *mountOptions, nodes []node, m idMaps, terminal bool) (_ *os.File, retErr error) {
	dev, err := newMount("tmpfs", "tmpfs", o.data, o.set)
	if err != nil {
		return nil, fmt.Errorf("make /dev: %w", err)
	}
	defer func() {
		if retErr != nil {
			retErr = fmt.Errorf("make /dev: %w", retErr)
			dev.Close()
		}
	}()
	if terminal {
		nodes = append([]node{console}, nodes...)
	}
	fd := int(dev.Fd())
	uid, gid, err := m.host(0, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
		return nil, os.NewSyscallError("chown", err)
	}
	for _, n := range nodes {
		name, ok := strings.CutPrefix(n.path, "/dev/")
		if !ok {
			continue
		}
		if err := makeNode(fd, name, n, m); err != nil {
			return nil, fmt.Errorf("device %s: %w", n.path, err)
		}
	}
	for _, l := range devLinks {
		if err := unix.Symlinkat(l[1], fd, l[0]); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("symlink %s: %w", l[0], err)
		}
		if err := unix.Fchownat(fd, l[0], uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return nil, fmt.Errorf("chown %s: %w", l[0], err)
		}
	}
	return dev, nil
}

// makeNode makes one node. A later device replaces an earlier one.
func makeNode(dev int, name string, n node, m idMaps) error {
	uid, gid, err := m.host(0, 0)
	if err != nil {
		return err
	}
	for dir := range parents(name) {
		err := unix.Mkdirat(dev, dir, 0o755)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err == nil {
			err = unix.Fchownat(dev, dir, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
		}
		if err != nil {
			return err
		}
	}
	rdev := int(unix.Mkdev(n.major, n.minor))
	err = unix.Mknodat(dev, name, n.kind|n.mode, rdev)
	if errors.Is(err, fs.ErrExist) {
		if err = unix.Unlinkat(dev, name, 0); err == nil {
			err = unix.Mknodat(dev, name, n.kind|n.mode, rdev)
		}
	}
	if err != nil {
		return err
	}
	return giveNode(dev, name, n, m)
}

// giveNode gives a node that has just been made its owner and its mode. In an
// image somebody may have put something else there meanwhile, such as a link to
// a file of the host.
func giveNode(dev int, name string, n node, m idMaps) error {
	uid, gid, err := m.host(n.uid, n.gid)
	if err != nil {
		return err
	}
	fd, err := unix.Openat(dev, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if !n.is(&st) {
		return fmt.Errorf("%w: something else was put in its place", ErrInvalid)
	}
	if err := unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	return unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), n.mode) // mknod heeds the umask
}

// parents yields the directories above a relative path, the topmost first.
func parents(name string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for i := range name {
			if name[i] == '/' && i > 0 && !yield(name[:i]) {
				return
			}
		}
	}
}

// parseDevices reads linux.devices, after the default ones.
func parseDevices(devices []specs.LinuxDevice) ([]node, error) {
	nodes := defaultNodes[:len(defaultNodes):len(defaultNodes)]
	for _, d := range devices {
		n, err := parseDevice(d)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

func parseDevice(d specs.LinuxDevice) (node, error) {
	if !path.IsAbs(d.Path) || path.Clean(d.Path) == "/" || strings.ContainsRune(d.Path, 0) {
		return node{}, fmt.Errorf("%w: device %q: want an absolute path", ErrInvalid, d.Path)
	}
	n := node{path: path.Clean(d.Path), mode: 0o666}
	switch d.Type {
	case "c", "u":
		n.kind = unix.S_IFCHR
	case "b":
		n.kind = unix.S_IFBLK
	case "p":
		n.kind = unix.S_IFIFO
	default:
		return node{}, fmt.Errorf("%w: device %s is of type %q: want c, u, b or p", ErrInvalid, d.Path, d.Type)
	}
	if n.kind != unix.S_IFIFO {
		if d.Major < 0 || d.Minor < 0 || d.Major > maxMajor || d.Minor > maxMinor {
			return node{}, fmt.Errorf("%w: device %s has number %d:%d", ErrInvalid, d.Path, d.Major, d.Minor)
		}
		n.major, n.minor = uint32(d.Major), uint32(d.Minor)
	}
	if d.FileMode != nil {
		n.mode = uint32(*d.FileMode) & 0o7777
	}
	if d.UID != nil {
		n.uid = *d.UID
	}
	if d.GID != nil {
		n.gid = *d.GID
	}
	return n, nil
}

// What the kernel has for the number of a device.
const (
	maxMajor = 1<<12 - 1
	maxMinor = 1<<20 - 1
)
