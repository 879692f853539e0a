package container

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/spawn"
)

// inner is the source of a bind mount that lies in the container's root, where
// earlier mounts of the config are: only the process can copy it, once they are
// there.
type inner struct {
	place     *place
	recursive bool
	changes   []change
	user      *os.File // a user namespace with the mount's id mappings, or nil

	root  *os.File    // as the parent sees it
	on    *attachment // what the place lies on, or nil: the root
	below string      // where on that, "": all of it
}

// within says where in the root a source lies that earlier mounts have a part
// in; nil if it is the host's alone.
func (m *mounts) within(source string, recursive bool) *inner {
	below, ok := strings.CutPrefix(filepath.Clean(source), m.path+"/")
	if !ok {
		return nil
	}
	p, err := resolvePlace(m.root, below, m.covered)
	if err != nil { // not by this way
		return nil
	}
	in := &inner{place: p, recursive: recursive, root: m.root, on: m.on(p.String())}
	if in.on != nil {
		in.below = strings.TrimPrefix(strings.TrimPrefix(p.String(), in.on.place.String()), "/")
	}
	holds := func(a *attachment) bool { return a.remount == nil && under(a.place.String(), p.String()) }
	if in.on == nil && !slices.ContainsFunc(m.list, holds) {
		return nil
	}
	return in
}

// bindInner plans a bind mount with such a source.
func (m *mounts) bindInner(a *attachment, mnt specs.Mount, o *mountOptions) error {
	if st, err := a.inner.stat(""); err == nil {
		a.file = !st.IsDir()
	}
	a.inner.changes = m.bindChanges(o)
	user, ofContainer, err := m.mappings(mnt, o)
	a.inner.user = user // closed with the others
	if err != nil || user == nil && !ofContainer {
		return err
	}
	if m.ns.own(unix.CLONE_NEWUSER) {
		return fmt.Errorf("%w: the source %s lies on an earlier mount, and the container's user namespace may not id-map that", ErrUnsupported, mnt.Source)
	}
	a.inner.changes = append(a.inner.changes, change{o.idmapRec, unix.MountAttr{
		Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(user.Fd()),
	}})
	return nil
}

// stat tells what there will be at a path below the place.
func (in *inner) stat(path string) (os.FileInfo, error) {
	if in.on == nil {
		return statBeneath(in.root, in.place.String()+path)
	}
	if in.below != "" {
		path = "/" + in.below + path
	}
	return in.on.stat(path)
}

// copyInner copies the source of a bind mount that earlier ones have a part in. Links
// do not lead out of the one that it lies on, which others may write to: they would
// to the container's proc, which would be there again without its masks.
func (b *builder) copyInner(dest string, in *inner) any {
	name := "copy /" + in.place.String() + " of the root for " + dest
	var from any
	switch {
	case in.on == nil:
		from = b.inPlace(in.place, len(in.place.elems), unix.O_PATH)
	case in.below == "":
		from = in.on.attached
	default:
		how := spawn.Struct(b.Table, &unix.OpenHow{
			Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
		})
		from = b.Call(name, unix.SYS_OPENAT2, in.on.attached, in.below, how, unix.SizeofOpenHow)
	}
	flags := unix.AT_EMPTY_PATH | unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC
	if in.recursive {
		flags |= unix.AT_RECURSIVE
	}
	tree := b.Call(name, unix.SYS_OPEN_TREE, from, "", flags)
	if in.user != nil {
		b.Keep(in.user)
	}
	for _, c := range in.changes {
		recursive := 0
		if c.recursive {
			recursive = unix.AT_RECURSIVE
		}
		b.setAttr("set mount attributes of "+dest, tree, recursive, &c.attr)
	}
	return tree
}
