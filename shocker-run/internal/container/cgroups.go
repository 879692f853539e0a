package container

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// cgroups are the groups of a container, which another stage has made: one
// directory on v2; on v1, where each controller has a tree of its own, one in
// each. Controllers that do not have the group are left alone.
type cgroups struct {
	v2     bool
	groups []group
}

type group struct {
	tree string // memory; "" on v2
	dir  string
}

// findCgroups looks the groups up at path below the trees in root. Without a
// path the container stays where its caller is.
func findCgroups(root, path string) (*cgroups, error) {
	g := &cgroups{}
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		return nil, &os.PathError{Op: "statfs", Path: root, Err: err}
	}
	g.v2 = st.Type == unix.CGROUP2_SUPER_MAGIC
	if path == "" {
		return g, nil
	}
	if !strings.HasPrefix(path, "/") || strings.Contains(path+"/", "/../") {
		return nil, fmt.Errorf("%w: cgroup %q: want an absolute path", ErrInvalid, path)
	}
	if g.v2 {
		dir := filepath.Join(root, path)
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err != nil {
			return nil, fmt.Errorf("cgroup %s: %w: shocker-cg up makes it", path, err)
		}
		g.groups = []group{{"", dir}}
		return g, nil
	}
	trees, err := os.ReadDir(root)
	if err != nil {
		return nil, err
	}
	for _, t := range trees {
		if !t.IsDir() {
			continue // cpu -> cpu,cpuacct
		}
		dir := filepath.Join(root, t.Name(), path)
		_, err := os.Stat(filepath.Join(dir, "cgroup.procs"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		g.groups = append(g.groups, group{t.Name(), dir})
	}
	if len(g.groups) == 0 {
		return nil, fmt.Errorf("cgroup %s is in no tree below %s: %w: shocker-cg up makes it", path, root, fs.ErrNotExist)
	}
	return g, nil
}

// attach puts the process with the given pid into the groups. On v1 the pid of
// a process with one thread goes to "tasks": writing to cgroup.procs waits for
// the whole kernel now and then (FEASIBILITY: 0.1 against 1.1 ms and more).
func (g *cgroups) attach(pid int) error {
	for _, group := range g.groups {
		file := filepath.Join(group.dir, "tasks")
		if _, err := os.Stat(file); err != nil {
			file = filepath.Join(group.dir, "cgroup.procs")
		}
		if err := os.WriteFile(file, strconv.AppendInt(nil, int64(pid), 10), 0); err != nil {
			return fmt.Errorf("join cgroup %s: %w", group.dir, err)
		}
	}
	return nil
}

// oomKills is how many processes of the container the kernel has killed for
// want of memory.
func (g *cgroups) oomKills() int {
	for _, group := range g.groups {
		for _, name := range []string{"memory.events", "memory.oom_control"} {
			data, err := os.ReadFile(filepath.Join(group.dir, name))
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

// cgroupMounts shows the container its own groups: on v2 with a cgroup
// namespace by a cgroup2 of its own, else by bind mounts of its directories,
// on v1 one for each controller on a small tmpfs.
func (m *mounts) cgroupMounts(dest string, o *mountOptions) error {
	g := m.cgroups
	switch {
	case g.v2 && m.ns.create&unix.CLONE_NEWCGROUP != 0:
		return m.append(&attachment{dest: dest, fs: fileSystem{"cgroup2", "cgroup", o.data, o.set, o.propagation}})
	case len(g.groups) == 0:
		return fmt.Errorf("%w: a cgroup mount without linux.cgroupsPath", ErrInvalid)
	case g.v2:
		tree, err := cloneTree(g.groups[0].dir, false, o.set, o.clear)
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
	for _, group := range g.groups {
		name := group.tree
		if err := unix.Mkdirat(int(base.Fd()), name, 0o755); err != nil {
			return fmt.Errorf("make %s: %w", name, err)
		}
		tree, err := cloneTree(group.dir, false, o.set, o.clear)
		if err != nil {
			return err
		}
		if err := m.append(&attachment{dest: dest + "/" + name, tree: tree}); err != nil {
			return err
		}
		controllers := strings.Split(name, ",")
		for _, c := range controllers {
			if len(controllers) == 1 {
				break
			}
			if err := unix.Symlinkat(name, int(base.Fd()), c); err != nil {
				return fmt.Errorf("link %s: %w", c, err)
			}
		}
	}
	return setAttr(base, false, &unix.MountAttr{Attr_set: o.set})
}
