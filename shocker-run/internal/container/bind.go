package container

import (
	"errors"
	"fmt"
	"os"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/spawn"
)

// bound is the kind of a mount that is a copy of a tree, of the host or inner.
const bound = "bind"

// isBind says whether a mount is one (config.md, "Mounts").
func isBind(mnt specs.Mount, o *mountOptions) bool { return o.bind || mnt.Type == bound }

// engineOptions are options of a volume that an engine has followed itself, by
// SELinux labels or owners, and hands down all the same.
var engineOptions = []string{"z", "Z", "U"}

// bind copies a tree of the host. As the parent does that, no flag of a mount
// is locked, as it would be in a user namespace.
func (m *mounts) bind(a *attachment, mnt specs.Mount, o *mountOptions) (err error) {
	if mnt.Source == "" {
		return fmt.Errorf("%w: a bind mount without a source", ErrInvalid)
	}
	if len(o.data) > 0 {
		err := fmt.Errorf("options %q mean nothing to the bind mount on %s", o.data, mnt.Destination)
		strange := func(option string) bool { return !slices.Contains(engineOptions, option) }
		if !slices.ContainsFunc(o.data, strange) {
			err = fmt.Errorf("%w: %w", err, ErrByHabit)
		}
		m.warn(err)
	}
	a.kind = bound // whatever type the config gives it
	a.unbindable = o.propagation == unix.MS_UNBINDABLE
	if o.propagationRec {
		a.unbindableRec = unix.AT_RECURSIVE
	}
	if a.inner = m.within(m.abs(mnt.Source), o.recursive); a.inner != nil {
		return m.bindInner(a, mnt, o)
	}
	if a.tree, err = copyTree(m.abs(mnt.Source), o.recursive); err != nil {
		return err
	}
	st, err := a.tree.Stat()
	if err != nil {
		return err
	}
	a.file = !st.IsDir()
	for _, c := range m.bindChanges(o) {
		if err := setAttr(a.tree, c.recursive, &c.attr); err != nil {
			return err
		}
	}
	return m.idmap(a, mnt, o)
}

// change is one of a tree's attributes.
type change struct {
	recursive bool
	attr      unix.MountAttr
}

// bindChanges are what is done to the copy of a tree, by the options of its
// mount. How mounts spread between it and the original comes first: without an
// option it gets those of the host and gives none, so that what the host unmounts
// is not held by its containers.
func (m *mounts) bindChanges(o *mountOptions) (list []change) {
	// A user namespace must not mount anything where the host would see it:
	// what is shared there is so with other containers' alone.
	if o.propagation != unix.MS_SHARED || m.ns.own(unix.CLONE_NEWUSER) {
		list = append(list, change{true, unix.MountAttr{Propagation: unix.MS_SLAVE}})
	}
	if o.propagation != 0 && o.propagation != unix.MS_SLAVE && o.propagation != unix.MS_UNBINDABLE {
		list = append(list, change{o.propagationRec, unix.MountAttr{Propagation: o.propagation}})
	}
	if o.set|o.clear != 0 {
		list = append(list, change{false, unix.MountAttr{Attr_set: o.set, Attr_clr: o.clear}})
	}
	if o.recSet|o.recClear != 0 {
		list = append(list, change{true, unix.MountAttr{Attr_set: o.recSet, Attr_clr: o.recClear}})
	}
	return list
}

// idmap applies the id mappings of a mount: its own, or those of the container's
// user namespace, as soon as that is there.
func (m *mounts) idmap(a *attachment, mnt specs.Mount, o *mountOptions) error {
	user, ofContainer, err := m.mappings(mnt, o)
	if a.mapped, a.mappedRec = ofContainer, ofContainer && o.idmapRec; user == nil {
		return err
	}
	return errors.Join(mapIDs(a.tree, o.idmapRec, user), user.Close())
}

// mappings are those of a mount as a user namespace, or those of the container.
func (m *mounts) mappings(mnt specs.Mount, o *mountOptions) (user *os.File, ofContainer bool, err error) {
	user, err = mountMappings(mnt, o)
	if err != nil || user != nil || !o.idmap {
		return user, false, err
	}
	if !m.ns.own(unix.CLONE_NEWUSER) {
		return nil, false, fmt.Errorf("%w: option idmap without mappings, and without a user namespace that has some", ErrInvalid)
	}
	return nil, true, nil
}

// mountMappings returns a user namespace with the id mappings of a mount, or
// nil if it has none.
func mountMappings(mnt specs.Mount, o *mountOptions) (*os.File, error) {
	if len(mnt.UIDMappings) == 0 && len(mnt.GIDMappings) == 0 {
		return nil, nil
	}
	if len(mnt.UIDMappings) == 0 || len(mnt.GIDMappings) == 0 {
		return nil, fmt.Errorf("%w: uidMappings and gidMappings of a mount come together", ErrInvalid)
	}
	return spawn.UserNamespace(mnt.UIDMappings, mnt.GIDMappings)
}

// mapIDs id-maps a tree (mount_setattr(2), kernel 5.12).
func mapIDs(tree *os.File, recursive bool, user *os.File) error {
	err := setAttr(tree, recursive, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(user.Fd())})
	if errors.Is(err, unix.EINVAL) {
		return unmappable(err)
	}
	return err
}

func unmappable(err error) error {
	return fmt.Errorf("%w: the file system cannot be id-mapped by this kernel", err)
}

// mapTrees id-maps those trees that take the mappings of the container.
func (m *mounts) mapTrees(pid int) error {
	for _, a := range m.list {
		if !a.mapped {
			continue
		}
		user, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", pid))
		if err != nil {
			return err
		}
		if err := errors.Join(mapIDs(a.tree, a.mappedRec, user), user.Close()); err != nil {
			return fmt.Errorf("mount %s: %w", a.dest, err)
		}
	}
	return nil
}
