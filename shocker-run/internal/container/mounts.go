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
	"shocker.sh/lib/sys"
)

// attachment is one mount of the container, ready to be put into its place.
// What needs the host, bind mounts and device nodes, the parent has made
// already, as a tree that is attached nowhere; what belongs to the container's
// namespaces (proc, tmpfs, mqueue ...) its own process makes.
type attachment struct {
	dest  string // as in the record, for messages
	kind  string // proc, devpts ..., bound
	place *place
	tree  *os.File // made by the parent, or nil
	file  bool     // a single file
	fs    fileSystem
	// remount changes what an earlier mount has put there.
	remount *mountOptions
	// mapped tells that the tree gets the id mappings of the container's user
	// namespace, once that is there.
	mapped, mappedRec bool
	// readonly is a tmpfs that is made read-only once all that belongs on it
	// is there: places of later mounts, device nodes, the working directory.
	readonly bool
	inner    *inner // a bind mount's source, nil: of the host
	// unbindable is a bind mount that is made so in its place, since it could
	// not be copied then; unbindableRec is AT_RECURSIVE if all below it is, too.
	unbindable    bool
	unbindableRec int
	attached      any // the mount in its place
}

// fileSystem is one that the child makes.
type fileSystem struct {
	dest         string // as the config has it; "": it is not of the config
	kind, source string
	data         []string
	set          uint64 // MOUNT_ATTR_
	propagation  uint64
	idmap        *os.File // a user namespace, or nil
}

// mounts plans the mounts of the record in their order. The caller closes the
// trees, also on error.
type mounts struct {
	list []*attachment

	root    *os.File // as the parent sees it
	path    string   // of the root, on the host
	bundle  string
	maps    idMaps
	ns      *namespaces
	group   *group.Group // nil: the container has none
	foreign bool         // the network namespace: see foreignNet
	onDisk  bool         // owners in the root count from 0: see openRoot
	warn    func(error)
	label   string // SELinux

	terminal bool // the program has one
	dev      bool // /dev is ours: see makeDev
	hostDev  bool // something is mounted on /dev
	nodes    []loose
	console  *place // of the terminal, if there is one
}

func (m *mounts) close() {
	for _, a := range m.list {
		a.close()
	}
}

func (a *attachment) close() error {
	var errs []error
	files := []*os.File{a.tree, a.fs.idmap}
	if a.inner != nil {
		files = append(files, a.inner.user)
	}
	for _, f := range files {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// maxMounts of a config, and as many masked and read-only paths: more would take
// long to look through, and not fit into the steps of one process.
const maxMounts = 4096

// plan prepares everything that is mounted.
func (m *mounts) plan(list []specs.Mount, devices []specs.LinuxDevice) error {
	if len(list) > maxMounts {
		return fmt.Errorf("%w: %d mounts; there can be %d", ErrInvalid, len(list), maxMounts)
	}
	nodes, err := parseDevices(devices)
	if err != nil {
		return err
	}
	for _, mnt := range list {
		if len(split(mnt.Destination)) == 0 {
			return fmt.Errorf("%w: mount on %q: want a place below the root", ErrInvalid, mnt.Destination)
		}
	}
	for _, mnt := range list {
		// Such a destination has always meant this to runc.
		if below, ok := strings.CutPrefix(path.Clean(mnt.Destination), m.path+"/"); ok {
			mnt.Destination = "/" + below
		}
		if err := m.add(mnt, nodes); err != nil {
			return fmt.Errorf("mount %s: %w", mnt.Destination, err)
		}
	}
	return m.planNodes(nodes)
}

func (m *mounts) add(mnt specs.Mount, nodes []node) (err error) {
	o := parseOptions(mnt.Options)
	dev := path.Clean("/"+mnt.Destination) == "/dev"
	a := &attachment{dest: mnt.Destination, kind: mnt.Type}
	m.hostDev = m.hostDev || dev && !o.remount
	switch {
	case o.remount:
		a.remount = o
		if o.clear&unix.MOUNT_ATTR_RDONLY != 0 {
			m.writable(mnt.Destination)
		}
	case isBind(mnt, o):
		err = m.bind(a, mnt, o)
	case mnt.Type == "tmpfs" && dev:
		a.readonly = o.set&unix.MOUNT_ATTR_RDONLY != 0
		o.set &^= unix.MOUNT_ATTR_RDONLY
		o.data = withMountLabel(mnt.Type, o.data, m.label)
		a.tree, err = makeDev(o, nodes, m.maps, m.terminal)
		m.dev = true
	case mnt.Type == "cgroup" || mnt.Type == "cgroup2" && m.v2():
		return m.cgroupMounts(mnt.Destination, o)
	default:
		err = m.fileSystem(a, mnt, o)
	}
	if err != nil {
		return errors.Join(err, a.close())
	}
	return m.append(a)
}

// writable takes back that an earlier tmpfs is to be read-only.
func (m *mounts) writable(dest string) {
	for _, a := range m.list {
		if path.Clean(a.dest) == path.Clean(dest) {
			a.readonly = false
		}
	}
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
	if a.remount == nil && p.known == len(p.elems) && p.isDir == a.file {
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
	a := m.on(place.String())
	if a == nil {
		return false, false, nil
	}
	st, err := a.stat(strings.TrimPrefix(place.String(), a.place.String()))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return false, false, nil
	}
	if err != nil {
		return false, false, err
	}
	return true, st.IsDir(), nil
}

// stat tells what a mount will have at a path below it.
func (a *attachment) stat(path string) (os.FileInfo, error) {
	switch {
	case a.inner != nil:
		return a.inner.stat(path)
	case a.tree != nil && path == "":
		return a.tree.Stat()
	case a.tree != nil:
		return statBeneath(a.tree, path)
	case a.kind == "proc" || a.kind == "sysfs": // the host's has the same names
		return os.Stat(kernelDirs[a.kind] + path)
	}
	return nil, os.ErrNotExist // it is new, and empty
}

// statBeneath tells what is at a path below root.
func statBeneath(root *os.File, path string) (os.FileInfo, error) {
	f, err := sys.OpenBeneath(root, "./"+path, unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Stat()
}

var kernelDirs = map[string]string{"proc": "/proc", "sysfs": "/sys"}
