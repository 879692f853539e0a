package container

import (
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/sys"
)

// rootPropagation are the values of linux.rootfsPropagation.
var rootPropagation = map[string]uint64{
	"":            0,
	"private":     unix.MS_PRIVATE,
	"rprivate":    unix.MS_PRIVATE | unix.MS_REC,
	"slave":       unix.MS_SLAVE,
	"rslave":      unix.MS_SLAVE | unix.MS_REC,
	"shared":      unix.MS_SHARED,
	"rshared":     unix.MS_SHARED | unix.MS_REC,
	"unbindable":  unix.MS_UNBINDABLE,
	"runbindable": unix.MS_UNBINDABLE | unix.MS_REC,
}

// enterRoot makes the container's root the process's working directory. It is
// attached in a mount namespace of the process, if need be in one that the
// process leaves again (leaveMounts).
func (c *Container) enterRoot(b *builder) {
	path := c.o.RootPath(c.spec)
	b.Call("keep mounts from the host", unix.SYS_MOUNT, 0, "/", 0, unix.MS_REC|unix.MS_SLAVE, 0)
	if c.setup.ns.joins(unix.CLONE_NEWNS) != nil {
		// What our own mount namespace has there may be something else.
		b.root = b.Call("copy the root", unix.SYS_OPEN_TREE, unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	}
	b.Call("attach the root", unix.SYS_MOVE_MOUNT, b.root, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_SYMLINKS)
	b.Call("enter the root", unix.SYS_FCHDIR, b.root)
}

// changeRoot makes the working directory, which is the container's root, the
// process's own.
func (c *Container) changeRoot(b *builder) error {
	flags := rootPropagation[c.spec.Linux.RootfsPropagation]
	recursive := 0
	if flags&unix.MS_REC != 0 {
		recursive = unix.AT_RECURSIVE
	}
	attr := &unix.MountAttr{Propagation: flags &^ unix.MS_REC}
	switch {
	case c.o.NoPivot:
		if err := c.coverHost(b); err != nil {
			return err
		}
		b.Call("move the root", unix.SYS_MOVE_MOUNT, b.root, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH)
		b.Call("change the root", unix.SYS_CHROOT, ".")
	default:
		b.Call("pivot_root", unix.SYS_PIVOT_ROOT, ".", ".")
		b.Call("drop the host's tree", unix.SYS_UMOUNT2, ".", unix.MNT_DETACH)
	}
	b.Call("enter the root", unix.SYS_CHDIR, "/")
	if flags != 0 {
		// Not earlier: pivot_root refuses a root that is shared.
		b.setAttr("set propagation of the root", b.root, recursive, attr)
	}
	return nil
}

// leaveMounts goes back to the mount namespace that the config names, unless
// that is a new one. The process keeps its root as a copy that is attached
// nowhere: nothing is mounted where others would see it, and all goes with the
// container's last process. The kernel makes mounts private that are attached
// nowhere; done before, unbindable ones are copied too.
func (c *Container) leaveMounts(b *builder) {
	home := c.setup.home
	if f := c.setup.ns.joins(unix.CLONE_NEWNS); f != nil {
		home = f
	}
	if home == nil {
		return
	}
	b.setAttr("make the mounts private", b.root, unix.AT_RECURSIVE, &unix.MountAttr{Propagation: unix.MS_PRIVATE})
	tree := b.Call("copy the root with its mounts", unix.SYS_OPEN_TREE, b.root, "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	b.Call("leave the mount namespace", unix.SYS_SETNS, home, unix.CLONE_NEWNS)
	b.Call("enter the root", unix.SYS_FCHDIR, tree)
	b.Call("change the root", unix.SYS_CHROOT, ".")
}

// coverHost takes the host's proc and sysfs out of the tree that stays below a
// root that is only moved over it. Whoever came out of such a root would find
// them without the masks of the container's own.
func (c *Container) coverHost(b *builder) error {
	mounts, err := sys.ReadKernel("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	root := c.o.RootPath(c.spec)
	for line := range strings.Lines(string(mounts)) {
		before, after, _ := strings.Cut(line, " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if len(fields) < 5 || len(kind) == 0 || kind[0] != "proc" && kind[0] != "sysfs" {
			continue
		}
		path := unescape(fields[4])
		if under(filepath.Clean(path), root) {
			continue
		}
		// One that a user namespace has locked stays, and is covered.
		b.Call("unmount the host's "+path, unix.SYS_UMOUNT2, path, unix.MNT_DETACH).IgnoreAny()
		b.Call("cover the host's "+path, unix.SYS_MOUNT, "tmpfs", path, "tmpfs", unix.MS_RDONLY, "nr_inodes=2").Ignore(unix.ENOENT)
	}
	return nil
}

// unescape reads a path of mountinfo, where some bytes are octal numbers
// (proc_pid_mountinfo(5)).
func unescape(path string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(path)
}
