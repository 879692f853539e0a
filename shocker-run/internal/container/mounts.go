package container

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/cgroup/group"
)

// attachment is one mount of the container, ready to be put into its place.
// What needs the host, bind mounts and device nodes, the parent has made
// already, as a tree that is attached nowhere; what belongs to the container's
// namespaces (proc, tmpfs, mqueue ...) its own process makes.
type attachment struct {
	dest  string // as in the record, for messages
	kind  string // proc, devpts ...
	place *place
	tree  *os.File // made by the parent, or nil
	file  bool     // a single file
	fs    fileSystem
}

// fileSystem is one that the child makes.
type fileSystem struct {
	kind, source string
	data         []string
	set          uint64 // MOUNT_ATTR_
	propagation  uint64
}

// mounts plans the mounts of the record in their order. The caller closes the
// trees, also on error.
type mounts struct {
	list []*attachment

	root    *os.File // as the parent sees it
	bundle  string
	maps    idMaps
	ns      *namespaces
	group   *group.Group // nil: the container has none
	foreign bool         // the network namespace: see foreignNet
	// host says what the parent can look at to know what a mount holds.
	host     map[string]string // place -> directory of the host
	terminal bool              // the program has one
	dev      bool              // /dev is ours: see makeDev
}

func (m *mounts) close() {
	for _, a := range m.list {
		if a.tree != nil {
			a.tree.Close()
		}
	}
}

// plan prepares everything that is mounted.
func (m *mounts) plan(list []specs.Mount, devices []specs.LinuxDevice) error {
	m.host = make(map[string]string)
	haveDev := false
	for _, mnt := range list {
		if len(split(mnt.Destination)) == 0 {
			return fmt.Errorf("%w: mount on %q", ErrInvalid, mnt.Destination)
		}
		haveDev = haveDev || path.Clean("/"+mnt.Destination) == "/dev"
	}
	if !haveDev {
		// The default devices are there whatever the record says, and never
		// written into the image.
		list = append([]specs.Mount{{
			Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755", "size=65536k"},
		}}, list...)
	}
	for _, mnt := range list {
		if err := m.add(mnt, devices); err != nil {
			return fmt.Errorf("mount %s: %w", mnt.Destination, err)
		}
	}
	return nil
}

func (m *mounts) add(mnt specs.Mount, devices []specs.LinuxDevice) error {
	o, err := parseOptions(mnt.Options)
	if err != nil {
		return err
	}
	if len(mnt.UIDMappings)+len(mnt.GIDMappings) > 0 {
		return fmt.Errorf("%w: id-mapped mount", ErrUnsupported)
	}
	if o.copyUp {
		return fmt.Errorf("%w: option tmpcopyup", ErrUnsupported)
	}
	dev := path.Clean("/"+mnt.Destination) == "/dev"
	a := &attachment{dest: mnt.Destination, kind: mnt.Type}
	switch {
	case o.bind || mnt.Type == "bind":
		a.tree, a.file, err = m.bind(mnt.Source, o)
	case mnt.Type == "tmpfs" && dev:
		a.tree, err = makeDev(o, devices, m.maps, m.terminal)
		m.dev = true
	case mnt.Type == "cgroup" || mnt.Type == "cgroup2":
		return m.cgroupMounts(mnt.Destination, o)
	case mnt.Type == "sysfs" && m.foreign:
		// Only the owner of the network namespace can make one (sysfs(5)).
		a.tree, err = cloneTree("/sys", false, o.set|unix.MOUNT_ATTR_RDONLY, o.clear&^unix.MOUNT_ATTR_RDONLY)
	case mnt.Type == "proc" && m.ns.own(unix.CLONE_NEWUSER) && !m.ns.own(unix.CLONE_NEWPID):
		// Likewise with the pid namespace.
		a.tree, err = cloneTree("/proc", false, o.set, o.clear)
	case mnt.Type == "":
		return fmt.Errorf("%w: it has no type", ErrInvalid)
	default:
		a.fs = fileSystem{mnt.Type, mnt.Source, o.data, o.set, o.propagation}
		if a.fs.source == "" {
			a.fs.source = "none"
		}
	}
	if err != nil {
		return err
	}
	if err := m.append(a); err != nil {
		return err
	}
	switch {
	case o.bind || mnt.Type == "bind":
		if !a.file {
			m.host[a.place.String()] = m.abs(mnt.Source)
		}
	case mnt.Type == "proc":
		m.host[a.place.String()] = "/proc"
	case mnt.Type == "sysfs":
		m.host[a.place.String()] = "/sys"
	default:
		m.host[a.place.String()] = ""
	}
	return nil
}

// append finds the place of a mount and puts it into the list.
func (m *mounts) append(a *attachment) error {
	m.list = append(m.list, a) // the tree is closed with the others
	p, err := resolvePlace(m.root, a.dest, m.covered)
	if err != nil {
		return err
	}
	if len(p.elems) == 0 {
		return fmt.Errorf("%w: it leads to the root", ErrInvalid)
	}
	if p.known == len(p.elems) && p.isDir == a.file {
		if a.file {
			return fmt.Errorf("a file cannot be mounted on a directory: %w", unix.EISDIR)
		}
		return fmt.Errorf("a directory cannot be mounted on a file: %w", unix.ENOTDIR)
	}
	a.place = p
	return nil
}

// covered says whether a place lies on one of the mounts planned so far.
func (m *mounts) covered(p string) bool {
	for _, a := range m.list {
		if a.place != nil && under(p, a.place.String()) {
			return true
		}
	}
	return false
}

func under(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, dir+"/")
}

func (m *mounts) abs(source string) string {
	if filepath.IsAbs(source) {
		return source
	}
	return filepath.Join(m.bundle, source)
}

// bind copies a tree of the host.
func (m *mounts) bind(source string, o *mountOptions) (_ *os.File, file bool, _ error) {
	if source == "" {
		return nil, false, fmt.Errorf("%w: a bind mount without a source", ErrInvalid)
	}
	if len(o.data) > 0 {
		return nil, false, fmt.Errorf("%w: option %q of a bind mount", ErrInvalid, o.data[0])
	}
	tree, err := cloneTree(m.abs(source), o.recursive, o.set, o.clear)
	if err != nil {
		return nil, false, err
	}
	st, err := tree.Stat()
	if err == nil && o.recSet|o.recClear != 0 {
		err = setAttr(tree, true, &unix.MountAttr{Attr_set: o.recSet, Attr_clr: o.recClear})
	}
	if err == nil && o.propagation != 0 && o.propagation != unix.MS_PRIVATE {
		err = setAttr(tree, o.propagationRec, &unix.MountAttr{Propagation: o.propagation})
	}
	if err != nil {
		return nil, false, errors.Join(err, tree.Close())
	}
	return tree, !st.IsDir(), nil
}

// look finds out, as far as the parent can, what path will be in the
// container: whether there is something, and whether it is a directory.
func (m *mounts) look(p string) (exists, isDir bool, err error) {
	place, err := resolvePlace(m.root, p, m.covered)
	if err != nil {
		return false, false, err
	}
	if place.known == len(place.elems) && len(place.elems) > 0 {
		return true, place.isDir, nil
	}
	name := place.String()
	for i := len(m.list) - 1; i >= 0; i-- { // the topmost mount counts
		on := m.list[i].place.String()
		if !under(name, on) {
			continue
		}
		dir := m.host[on]
		if dir == "" {
			return false, false, nil // it is new, and empty
		}
		st, err := os.Stat(dir + strings.TrimPrefix(name, on))
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			return false, false, nil
		}
		if err != nil {
			return false, false, err
		}
		return true, st.IsDir(), nil
	}
	return false, false, nil
}
