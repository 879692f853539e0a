// Package hierarchy finds the cgroup hierarchies of a machine.
//
// A cgroup is a directory in each of them, at the same path:
//
//	v2      /sys/fs/cgroup/ps_42152                 one hierarchy, all controllers
//	v1      /sys/fs/cgroup/{cpu,memory,…}/ps_42152  one hierarchy a mount
//	hybrid  v1, and v2 at /sys/fs/cgroup/unified with what v1 left over
//
// Which controller is in which hierarchy, and by which version's rules it is
// set there, is all that the other packages need to know of these forms.
package hierarchy

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/sys"
)

// Hierarchy is one mounted tree of cgroups.
type Hierarchy struct {
	Mount   string `json:"mount"`   // where it is mounted
	Version int    `json:"version"` // 1 or 2
	// Controllers that can be used in it, named as its version does ("blkio"
	// in v1 is "io" in v2); "name=systemd" for one of v1 that has none.
	Controllers []string `json:"controllers"`
	// Base is the cgroup from which paths count, below Mount; "" is Mount.
	Base string `json:"base,omitempty"`
	// Root is the cgroup that is seen at Mount: "/", but in a container
	// without a cgroup namespace.
	Root string `json:"root"`
}

// Has says whether the hierarchy has a controller.
func (h Hierarchy) Has(controller string) bool { return slices.Contains(h.Controllers, controller) }

// Find returns the hierarchies that are mounted at root (/sys/fs/cgroup) or
// below it. There is at most one of version 2.
func Find(root string) ([]Hierarchy, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		return nil, &os.PathError{Op: "statfs", Path: root, Err: err}
	}
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		// No need of mountinfo, which has a line for every mount of the machine.
		h, err := unified(root)
		return []Hierarchy{h}, err
	}
	mountinfo, err := sys.ReadKernel("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	found, err := parse(string(mountinfo), root)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%w below %s: mount -t cgroup2 cgroup2 %s", ErrNone, root, root)
	}
	return found, nil
}

// parse reads the cgroup mounts out of mountinfo (proc_pid_mountinfo(5)):
//
//	35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
func parse(mountinfo, root string) ([]Hierarchy, error) {
	var found []Hierarchy
	var devices []string
	for line := range strings.Lines(mountinfo) {
		mount, fs, ok := strings.Cut(line, " - ")
		if !ok || !strings.HasPrefix(fs, "cgroup") {
			continue
		}
		m, f := strings.Fields(mount), strings.Fields(fs)
		if len(m) < 6 || len(f) < 3 {
			return nil, fmt.Errorf("/proc/self/mountinfo: cannot read line %q", line)
		}
		device, at := m[2], unescape(m[4])
		below, err := filepath.Rel(root, at)
		if err != nil || below == ".." || strings.HasPrefix(below, "../") {
			continue
		}
		if slices.Contains(devices, device) {
			continue // the same hierarchy, mounted again
		}
		devices = append(devices, device)
		switch f[0] {
		case "cgroup":
			found = append(found, Hierarchy{Mount: at, Version: 1, Controllers: options(f[2]), Root: m[3]})
		case "cgroup2":
			h, err := unified(at)
			if err != nil {
				return nil, err
			}
			h.Root = m[3]
			found = append(found, h)
		}
	}
	return found, nil
}

func unified(mount string) (Hierarchy, error) {
	data, err := sys.ReadKernel(filepath.Join(mount, "cgroup.controllers"))
	return Hierarchy{Mount: mount, Version: 2, Controllers: strings.Fields(string(data)), Root: "/"}, err
}

// options picks the controllers out of the options of a v1 mount.
func options(list string) []string {
	var controllers []string
	for o := range strings.SplitSeq(list, ",") {
		switch o {
		case "rw", "ro", "xattr", "clone_children", "noprefix", "cpuset_v2_mode", "favordynmods":
		default:
			if !strings.HasPrefix(o, "release_agent=") {
				controllers = append(controllers, o)
			}
		}
	}
	return controllers
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
