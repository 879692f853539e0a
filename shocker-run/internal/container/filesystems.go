package container

import (
	"fmt"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// ofTheContainer are the file systems that show the namespaces of the process
// that mounts them, or belong to its user namespace: the container's process
// makes them. All others the parent makes, as a user namespace has no power to.
var ofTheContainer = map[string]bool{
	"proc": true, "sysfs": true, "tmpfs": true, "devpts": true, "mqueue": true, "cgroup": true, "cgroup2": true, "ramfs": true,
}

// maxParameter is what fsconfig(2) takes of one parameter, in bytes.
const maxParameter = 255

// fileSystem plans a file system that is mounted for the container.
func (m *mounts) fileSystem(a *attachment, mnt specs.Mount, o *mountOptions) (err error) {
	// What is recursive for a tree holds for a new mount.
	o.set, o.clear = o.set&^o.recClear|o.recSet, o.clear|o.recClear
	o.data = withMountLabel(mnt.Type, o.data, m.label)
	if mnt.Type == "tmpfs" {
		a.readonly = o.set&unix.MOUNT_ATTR_RDONLY != 0
		o.set &^= unix.MOUNT_ATTR_RDONLY
	}
	a.fs = fileSystem{dest: mnt.Destination, kind: mnt.Type, source: mnt.Source, data: o.data, set: o.set, propagation: o.propagation}
	if a.fs.source == "" {
		a.fs.source = "none"
	}
	foreignPID, err := m.ns.foreign(unix.CLONE_NEWPID)
	if err != nil {
		return err
	}
	switch {
	case mnt.Type == "":
		return fmt.Errorf("%w: it has no type", ErrInvalid)
	case mnt.Type == "sysfs" && m.foreign:
		// Only the owner of the network namespace can make one (sysfs(5)).
		a.tree, err = cloneTree("/sys", false, o.set|unix.MOUNT_ATTR_RDONLY, o.clear&^unix.MOUNT_ATTR_RDONLY)
		return err
	case mnt.Type == "proc" && foreignPID && m.ns.joins(unix.CLONE_NEWPID) == nil:
		// Likewise with the pid namespace, here the host's.
		a.tree, err = cloneTree("/proc", false, o.set, o.clear)
		return err
	case mnt.Type == "proc" && foreignPID:
		return fmt.Errorf("%w: the pid namespace belongs to another user namespace, whose proc this one may not mount", ErrUnsupported)
	case mnt.Type == "tmpfs":
		if err := m.tmpfs(a, o); err != nil || a.tree != nil {
			return err
		}
	}
	if !ofTheContainer[mnt.Type] && !a.fs.long() {
		return m.hostFileSystem(a, mnt, o)
	}
	if o.idmap && len(mnt.UIDMappings)+len(mnt.GIDMappings) == 0 {
		return fmt.Errorf("%w: option idmap of a new %s without mappings", ErrInvalid, mnt.Type)
	}
	a.fs.idmap, err = mountMappings(mnt, o)
	return err
}

// long says whether a parameter is too long for fsconfig, as the layers of an
// overlay may be.
func (fs fileSystem) long() bool {
	return slices.ContainsFunc(fs.data, func(d string) bool {
		_, value, _ := strings.Cut(d, "=")
		return len(value) > maxParameter
	})
}

// hostFileSystem makes a file system of the host, as a disk has it.
func (m *mounts) hostFileSystem(a *attachment, mnt specs.Mount, o *mountOptions) (err error) {
	if o.set&unix.MOUNT_ATTR_RDONLY != 0 {
		// A disk that is read-only itself can be mounted only so.
		o.data = append(o.data, "ro")
	}
	a.fs.data = nil
	if a.tree, err = newMount(mnt.Type, a.fs.source, o.data, o.set); err != nil {
		return err
	}
	st, err := a.tree.Stat()
	if err != nil {
		return err
	}
	a.file = !st.IsDir()
	if o.propagation != 0 {
		if err := setAttr(a.tree, false, &unix.MountAttr{Propagation: o.propagation}); err != nil {
			return err
		}
	}
	return m.idmap(a, mnt, o)
}

// remount changes an earlier mount: its attributes, and unless it is a bind
// mount the parameters of its file system.
func (b *builder) remount(a *attachment) {
	o, at := a.remount, b.inPlace(a.place, len(a.place.elems), unix.O_PATH)
	if len(o.data) > 0 && !o.bind {
		fs := b.Call("pick file system of "+a.dest, unix.SYS_FSPICK, at, "", unix.FSPICK_CLOEXEC|unix.FSPICK_EMPTY_PATH)
		b.configure("file system of "+a.dest, fs, o.data)
		b.Call("remount "+a.dest, unix.SYS_FSCONFIG, fs, unix.FSCONFIG_CMD_RECONFIGURE, 0, 0, 0)
	}
	if o.set|o.clear != 0 {
		b.setAttr("remount "+a.dest, at, 0, &unix.MountAttr{Attr_set: o.set, Attr_clr: o.clear})
	}
	if o.recSet|o.recClear != 0 {
		b.setAttr("remount "+a.dest, at, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: o.recSet, Attr_clr: o.recClear})
	}
	if o.propagation != 0 {
		recursive := 0
		if o.propagationRec {
			recursive = unix.AT_RECURSIVE
		}
		b.setAttr("propagation of "+a.dest, at, recursive, &unix.MountAttr{Propagation: o.propagation})
	}
}

// configure gives a file system its parameters.
func (b *builder) configure(name string, fs any, data []string) {
	for _, d := range data {
		key, value, hasValue := strings.Cut(d, "=")
		if hasValue {
			b.Call(name+": option "+d, unix.SYS_FSCONFIG, fs, unix.FSCONFIG_SET_STRING, key, value, 0)
		} else {
			b.Call(name+": option "+d, unix.SYS_FSCONFIG, fs, unix.FSCONFIG_SET_FLAG, key, 0, 0)
		}
	}
}

// mountAt mounts a file system at a place by mount(2), which takes parameters
// of any length, and returns what is then there.
func (b *builder) mountAt(a *attachment) any {
	at := b.inPlace(a.place, len(a.place.elems), unix.O_PATH|unix.O_DIRECTORY)
	b.Call("enter "+a.dest, unix.SYS_FCHDIR, at)
	b.Call("mount "+a.fs.kind+" on "+a.dest, unix.SYS_MOUNT, a.fs.source, ".", a.fs.kind, 0, strings.Join(a.fs.data, ","))
	b.Call("enter the root", unix.SYS_FCHDIR, b.root)
	tree := b.inPlace(a.place, len(a.place.elems), unix.O_PATH|unix.O_DIRECTORY)
	if a.fs.set != 0 {
		b.setAttr("attributes of "+a.dest, tree, 0, &unix.MountAttr{Attr_set: a.fs.set})
	}
	b.finishFileSystem(a.fs, tree)
	return tree
}

// finishFileSystem sets what fsmount(2) does not take.
func (b *builder) finishFileSystem(fs fileSystem, tree any) {
	if fs.propagation != 0 && fs.propagation != unix.MS_PRIVATE {
		b.setAttr("propagation of "+fs.kind, tree, 0, &unix.MountAttr{Propagation: fs.propagation})
	}
	if fs.idmap != nil {
		b.Keep(fs.idmap)
		b.setAttr("id-map "+fs.kind, tree, 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(fs.idmap.Fd())})
	}
}
