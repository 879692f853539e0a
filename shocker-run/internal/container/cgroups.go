package container

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/cgroup/group"
	"shocker.sh/lib/sys"
)

// joinGroup puts a process into the container's cgroup, or where its first
// process has moved to; init is 0 if that is the one.
func (c *Container) joinGroup(pid, init int) error {
	if c.o.Group == nil {
		return nil
	}
	err := c.o.Group.Join(pid, group.Joining{Init: init, Frozen: c.o.IntoFrozen, Below: c.o.Below})
	if errors.Is(err, group.ErrGone) && init == 0 {
		err = fmt.Errorf("%w: shocker-cg up makes it", err)
	}
	if err != nil {
		return fmt.Errorf("join the cgroup: %w", err)
	}
	return nil
}

// oomKills is how many processes of the container the kernel has killed for
// want of memory.
func (c *Container) oomKills() int {
	if c.o.Group == nil {
		return 0
	}
	for _, dir := range c.o.Group.Dirs() {
		for _, name := range []string{"memory.events", "memory.oom_control"} {
			data, err := sys.ReadKernel(filepath.Join(dir, name))
			if err != nil {
				continue
			}
			lines := bufio.NewScanner(bytes.NewReader(data))
			for lines.Scan() {
				if f := strings.Fields(lines.Text()); len(f) == 2 && f[0] == "oom_kill" {
					n, _ := strconv.Atoi(f[1])
					return n
				}
			}
		}
	}
	return 0
}

// v2 says whether the container's group is of cgroup v2 alone.
func (m *mounts) v2() bool {
	return m.group != nil && len(m.group.Hierarchies) == 1 && m.group.Hierarchies[0].Version == 2
}

// cgroupMounts shows the container its own groups: on v2 with a cgroup
// namespace by a cgroup2 of its own, else by bind mounts of its directories,
// on v1 one for each controller on a small tmpfs.
func (m *mounts) cgroupMounts(dest string, o *mountOptions) error {
	if m.group == nil {
		return fmt.Errorf("%w: a cgroup mount without linux.cgroupsPath", ErrInvalid)
	}
	all := m.group.Hierarchies
	if m.v2() {
		if m.ns.create&unix.CLONE_NEWCGROUP != 0 {
			return m.append(&attachment{dest: dest, fs: fileSystem{kind: "cgroup2", source: "cgroup", data: o.data, set: o.set, propagation: o.propagation}})
		}
		tree, err := cloneTree(m.group.In(all[0]), false, o.set, o.clear)
		if err != nil {
			return err
		}
		return m.append(&attachment{dest: dest, tree: tree})
	}
	base, err := newMount("tmpfs", "tmpfs", []string{"mode=755"}, o.set&^unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		return err
	}
	if err := m.append(&attachment{dest: dest, tree: base}); err != nil {
		return err
	}
	for _, h := range all {
		tree, err := cloneTree(m.group.In(h), false, o.set, o.clear)
		if errors.Is(err, fs.ErrNotExist) {
			continue // another's station did not make it there
		}
		if err != nil {
			return err
		}
		name := filepath.Base(h.Mount)
		if err := unix.Mkdirat(int(base.Fd()), name, 0o755); err != nil {
			return errors.Join(fmt.Errorf("make %s: %w", name, err), tree.Close())
		}
		if err := m.append(&attachment{dest: dest + "/" + name, tree: tree}); err != nil {
			return err
		}
		for _, c := range h.Controllers {
			if h.Version == 2 || c == name || strings.HasPrefix(c, "name=") {
				continue // of several in one hierarchy each has its name
			}
			if err := unix.Symlinkat(name, int(base.Fd()), c); err != nil {
				return fmt.Errorf("link %s: %w", c, err)
			}
		}
	}
	return setAttr(base, false, &unix.MountAttr{Attr_set: o.set})
}
