package container

import (
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/spawn"
)

// builder writes the steps of the container's process. Its methods add system
// calls that the process will make; what they return is known only there.
type builder struct {
	*spawn.Table
	root any      // descriptor of the container's root: a file, or a step
	proc *os.File // see hostProc
	own  []*os.File
}

// close closes what was opened for the table, once its process has it.
func (b *builder) close() {
	for _, f := range b.own {
		f.Close()
	}
}

// inRoot opens a path below the root as if that were "/", never through links
// of /proc. It holds whatever the image or another container that shares a
// volume does meanwhile (CVE-2021-30465, CVE-2023-27561).
func (b *builder) inRoot(path string, flags uint64) any {
	return b.openAt(path, flags, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
}

func (b *builder) openAt(path string, flags, resolve uint64) any {
	if path == "" {
		return b.root
	}
	how := spawn.Struct(b.Table, &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: resolve})
	return b.Call("open /"+path+" in the root", unix.SYS_OPENAT2, b.root, path, how, unix.SizeofOpenHow)
}

// inPlace opens the first n elements of a place. The parent has followed the
// links of the image; a link that is there now was put there behind its back.
func (b *builder) inPlace(p *place, n int, flags uint64) any {
	resolve := uint64(unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS)
	if !p.covered {
		resolve |= unix.RESOLVE_NO_SYMLINKS
	}
	return b.openAt(strings.Join(p.elems[:n], "/"), flags, resolve)
}

// makePlace makes what is missing of a place: directories, and at its end an
// empty file if asked for.
func (b *builder) makePlace(p *place, file bool) {
	for i := p.known; i < len(p.elems); i++ {
		name := "/" + strings.Join(p.elems[:i+1], "/")
		dir := b.inPlace(p, i, unix.O_PATH|unix.O_DIRECTORY)
		if file && i == len(p.elems)-1 {
			b.Call("make file "+name, unix.SYS_MKNODAT, dir, p.elems[i], unix.S_IFREG|0o644, 0).Ignore(unix.EEXIST)
			return
		}
		b.Call("make directory "+name, unix.SYS_MKDIRAT, dir, p.elems[i], 0o755).Ignore(unix.EEXIST)
	}
}

// fileSystem makes a file system of the container's namespaces, attached
// nowhere yet.
func (b *builder) fileSystem(fs fileSystem) *spawn.Step {
	name := fs.kind
	if fs.dest != "" {
		name += " for " + fs.dest
	}
	ctx := b.Call("open file system "+name, unix.SYS_FSOPEN, fs.kind, unix.FSOPEN_CLOEXEC)
	b.Call(name+": source "+fs.source, unix.SYS_FSCONFIG, ctx, unix.FSCONFIG_SET_STRING, "source", fs.source, 0)
	b.configure(name, ctx, fs.data)
	b.Call("make file system "+name, unix.SYS_FSCONFIG, ctx, unix.FSCONFIG_CMD_CREATE, 0, 0, 0)
	tree := b.Call("mount "+name, unix.SYS_FSMOUNT, ctx, unix.FSMOUNT_CLOEXEC, fs.set)
	b.finishFileSystem(fs, tree)
	return tree
}

// attach puts a tree onto an opened place.
func (b *builder) attach(name string, tree, at any) *spawn.Step {
	return b.Call(name, unix.SYS_MOVE_MOUNT, tree, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

func (b *builder) setAttr(name string, tree any, flags int, attr *unix.MountAttr) *spawn.Step {
	return b.Call(name, unix.SYS_MOUNT_SETATTR, tree, "", unix.AT_EMPTY_PATH|flags, spawn.Struct(b.Table, attr), unsafe.Sizeof(*attr))
}

// mounts makes and attaches the mounts in their order. It returns the proc
// and devpts trees, if there are any.
func (b *builder) mounts(m *mounts) (proc, pts any) {
	for _, a := range m.list {
		if a.remount != nil {
			b.remount(a)
			continue
		}
		b.makePlace(a.place, a.file)
		var tree any = a.tree
		switch {
		case a.fs.long():
			tree = b.mountAt(a)
		case a.inner != nil:
			tree = b.copyInner(a.dest, a.inner)
		case a.tree == nil:
			tree = b.fileSystem(a.fs)
		}
		switch a.kind {
		case "proc":
			proc = tree
		case "devpts":
			pts = tree
		}
		if a.fs.long() {
			a.attached = tree
			continue
		}
		at := b.inPlace(a.place, len(a.place.elems), unix.O_PATH)
		renew := a.kind == bound && a.inner == nil && !a.file && !m.ns.own(unix.CLONE_NEWUSER)
		if a.tree != nil && a.kind == "tmpfs" {
			if renew = !copies(a.tree); !renew {
				tree = b.copyMount(a.dest, a.tree)
			}
		}
		b.attach("mount on "+a.dest, tree, at)
		if renew {
			tree = b.renew(a.dest, a.tree, at)
		}
		if a.unbindable {
			b.setAttr("make "+a.dest+" unbindable", tree, a.unbindableRec, &unix.MountAttr{Propagation: unix.MS_UNBINDABLE})
		}
		a.attached = tree
	}
	b.looseNodes(m)
	return proc, pts
}

// copies says whether a mount that is attached nowhere can be copied (kernel
// 6.15).
func copies(tree *os.File) bool {
	fd, err := unix.OpenTree(int(tree.Fd()), "", copyFlags)
	if err == nil {
		_ = unix.Close(fd) // nothing but a probe
	}
	return err == nil
}

const copyFlags = unix.AT_EMPTY_PATH | unix.AT_RECURSIVE | unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC

func (b *builder) copyMount(dest string, tree *os.File) *spawn.Step {
	return b.Call("copy mount on "+dest, unix.SYS_OPEN_TREE, tree, "", copyFlags)
}

// renew puts a copy into the place of a mount that the parent has made. Since
// kernel 6.8 mountinfo lists mounts in the order in which they were made, and
// there the record's order is looked for, by runtime-tools for one. A bind mount
// of a file, and those of a user namespace, stay as they are.
func (b *builder) renew(dest string, tree *os.File, at any) *spawn.Step {
	again := b.copyMount(dest, tree)
	// What is unmounted here must stay mounted where it is shared with.
	b.setAttr("keep to itself "+dest, tree, unix.AT_RECURSIVE, &unix.MountAttr{Propagation: unix.MS_PRIVATE})
	b.Call("enter "+dest, unix.SYS_FCHDIR, tree)
	b.Call("unmount "+dest, unix.SYS_UMOUNT2, ".", unix.MNT_DETACH)
	b.attach("mount again on "+dest, again, at)
	b.Call("enter the root again", unix.SYS_FCHDIR, b.root)
	return again
}

// seal makes those mounts read-only that had to wait for it.
func (b *builder) seal(m *mounts) {
	for _, a := range m.list {
		if a.readonly {
			b.setAttr("make "+a.dest+" read-only", a.attached, 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
		}
	}
}

// mask covers a path: a file with /dev/null, a directory with an empty
// read-only file system. One that is not there needs no mask.
func (b *builder) mask(m mask) {
	at := b.inRoot(m.path, unix.O_PATH).(*spawn.Step).Ignore(unix.ENOENT)
	var tree any = m.null
	if m.null == nil {
		tree = b.fileSystem(fileSystem{kind: "tmpfs", source: "tmpfs", data: []string{"nr_inodes=2", "mode=555"}, set: unix.MOUNT_ATTR_RDONLY})
	}
	b.attach("mask /"+m.path, tree, at).Ignore(unix.EBADF)
}

// readonly puts a read-only copy of a path over it.
func (b *builder) readonly(path string) {
	at := b.inRoot(strings.Join(split(path), "/"), unix.O_PATH).(*spawn.Step).Ignore(unix.ENOENT)
	tree := b.Call("copy mount "+path, unix.SYS_OPEN_TREE, at, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC).Ignore(unix.EBADF)
	b.setAttr("make "+path+" read-only", tree, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}).Ignore(unix.EBADF)
	b.attach("mount "+path+" read-only", tree, at).Ignore(unix.EBADF)
}

// sysctl writes a sysctl through a proc, by its descriptor and not through what
// may be mounted in it by now (CVE-2025-52881).
func (b *builder) sysctl(proc any, key, value string) {
	name := fmt.Sprintf("sysctl %s=%s", key, value)
	how := spawn.Struct(b.Table, &unix.OpenHow{
		Flags:   unix.O_WRONLY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS,
	})
	fd := b.Call(name, unix.SYS_OPENAT2, proc, "sys/"+sysctlPath(key), how, unix.SizeofOpenHow)
	b.Call(name, unix.SYS_WRITE, fd, value, len(value))
}

// loopback brings lo up.
func (b *builder) loopback() error {
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	fd := b.Call("open socket", unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	b.Call("bring lo up", unix.SYS_IOCTL, fd, unix.SIOCSIFFLAGS, spawn.Struct(b.Table, ifr))
	return nil
}
