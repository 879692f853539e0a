package container

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/spawn"
	"shocker.sh/lib/sys"
)

// loose is a device that is not in a /dev of ours: one elsewhere, or any where no
// tmpfs is mounted on /dev.
type loose struct {
	node
	place *place
}

// planNodes finds the places of the loose devices. In a user namespace, whose
// root may make none, the parent makes them in the image. Those in a directory
// of the host have to be there already; which of the default ones a /dev of the
// host has is its own affair.
func (m *mounts) planNodes(nodes []node) (err error) {
	if m.terminal {
		if m.console, err = resolvePlace(m.root, console.path, m.covered); err != nil {
			return fmt.Errorf("device %s: %w", console.path, err)
		}
	}
	for i, n := range nodes {
		if strings.HasPrefix(n.path, "/dev/") && (m.dev || m.hostDev && i < len(defaultNodes)) {
			continue
		}
		if err := m.planNode(n); err != nil {
			return fmt.Errorf("device %s: %w", n.path, err)
		}
	}
	return nil
}

func (m *mounts) planNode(n node) error {
	p, err := resolvePlace(m.root, n.path, m.covered)
	if err != nil {
		return err
	}
	on := m.on(p.String())
	there, err := m.nodeAt(p, on)
	if err != nil {
		return err
	}
	switch {
	case there != nil && !n.is(there):
		return fmt.Errorf("%w: something else is at that path: mode %#o, device %d:%d", ErrInvalid,
			there.Mode, unix.Major(uint64(there.Rdev)), unix.Minor(uint64(there.Rdev)))
	case there != nil:
		return nil
	case on != nil && (on.tree != nil && on.kind != "tmpfs" || on.inner != nil):
		return fmt.Errorf("%w: it would be made in what is mounted from the host on %s", ErrInvalid, on.dest)
	case !m.ns.own(unix.CLONE_NEWUSER):
		m.nodes = append(m.nodes, loose{n, p})
		return nil
	case on != nil:
		return fmt.Errorf("%w: a user namespace cannot have a device on the mount on %s: mount a tmpfs on /dev, and put it there", ErrUnsupported, on.dest)
	}
	return m.makeInImage(n, p)
}

// nodeAt tells what is at a place; nil is nothing.
func (m *mounts) nodeAt(p *place, on *attachment) (*unix.Stat_t, error) {
	root, name := m.root, p.String()
	if on != nil {
		root, name = on.tree, strings.TrimPrefix(strings.TrimPrefix(name, on.place.String()), "/")
		if root == nil {
			return nil, nil
		}
	}
	f, err := sys.OpenBeneath(root, "./"+name, unix.O_PATH, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	return &st, nil
}

// is says whether a file is the device.
func (n node) is(st *unix.Stat_t) bool {
	numbered := n.kind == unix.S_IFCHR || n.kind == unix.S_IFBLK
	return st.Mode&unix.S_IFMT == n.kind && (!numbered || uint64(st.Rdev) == unix.Mkdev(n.major, n.minor))
}

// makeInImage makes a device in the image's tree, as the parent sees it.
func (m *mounts) makeInImage(n node, p *place) error {
	maps := m.maps
	if m.onDisk {
		maps = idMaps{}
	}
	dir := m.root
	for i := range p.elems[:len(p.elems)-1] {
		next, err := sys.OpenBeneath(m.root, strings.Join(p.elems[:i+1], "/"), unix.O_DIRECTORY, 0)
		if errors.Is(err, unix.ENOENT) {
			if err = makeDir(dir, p.elems[i], maps); err == nil {
				next, err = sys.OpenBeneath(m.root, strings.Join(p.elems[:i+1], "/"), unix.O_DIRECTORY, 0)
			}
		}
		if err != nil {
			return err
		}
		defer next.Close()
		dir = next
	}
	return makeNode(int(dir.Fd()), path.Base(p.String()), n, maps)
}

func makeDir(in *os.File, name string, maps idMaps) error {
	uid, gid, err := maps.host(0, 0)
	if err == nil {
		err = unix.Mkdirat(int(in.Fd()), name, 0o755)
	}
	if err == nil {
		err = unix.Fchownat(int(in.Fd()), name, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil {
		return fmt.Errorf("make directory %s: %w", name, err)
	}
	return nil
}

// looseNodes makes the devices that the process can make, and in a /dev of the
// image the links that every /dev has.
func (b *builder) looseNodes(m *mounts) {
	for _, n := range m.nodes {
		dir, name := b.parent(n.place)
		// No chmod for what the umask takes away: it would follow a link that
		// somebody has put there meanwhile, and to a file of the host.
		b.Call("clear umask", unix.SYS_UMASK, 0)
		b.Call("make device "+n.path, unix.SYS_MKNODAT, dir, name, n.kind|n.mode, unix.Mkdev(n.major, n.minor))
		b.Call("set umask", unix.SYS_UMASK, 0o022)
		b.Call("chown "+n.path, unix.SYS_FCHOWNAT, dir, name, n.uid, n.gid, unix.AT_SYMLINK_NOFOLLOW)
	}
	if m.console != nil {
		b.makePlace(m.console, true)
	}
	if m.dev || m.hostDev {
		return
	}
	dir := b.inRoot("dev", unix.O_PATH|unix.O_DIRECTORY)
	b.Call("remove /dev/ptmx", unix.SYS_UNLINKAT, dir, "ptmx", 0).IgnoreAny()
	for _, l := range devLinks {
		b.Call("make link /dev/"+l[0], unix.SYS_SYMLINKAT, l[1], dir, l[0]).Ignore(unix.EEXIST)
	}
}

// parent makes and opens the directory of a place.
func (b *builder) parent(p *place) (dir any, name string) {
	last := len(p.elems) - 1
	above := &place{elems: p.elems[:last], known: min(p.known, last), isDir: true, covered: p.covered}
	b.makePlace(above, false)
	return b.inPlace(above, len(above.elems), unix.O_PATH|unix.O_DIRECTORY), p.elems[last]
}

// attachConsole puts the terminal in the place of /dev/console. A link that is
// there, in a directory of the host's, is covered and not followed
// (CVE-2025-52565).
func (b *builder) attachConsole(p *place, slave *spawn.Step) {
	tree := b.Call("copy the terminal's mount", unix.SYS_OPEN_TREE, slave, "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	dir, name := b.parent(p)
	at := b.Call("open /dev/console", unix.SYS_OPENAT, dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC)
	b.attach("mount the terminal on /dev/console", tree, at)
}
