package group

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"shocker.sh/lib/cgroup/hierarchy"
)

// Group is a cgroup, which may or may not exist.
type Group struct {
	Path        string // below every mount, or its base: /ps_42152
	Hierarchies []hierarchy.Hierarchy
	Owner       string // who makes it, for Owner; may be ""
}

// New returns the group at an absolute path in the hierarchies below root
// (/sys/fs/cgroup). Nothing is made.
func New(root, path string) (*Group, error) {
	if err := CheckPath(path); err != nil {
		return nil, err
	}
	found, err := hierarchy.Find(root)
	if err != nil {
		return nil, err
	}
	return &Group{Path: path, Hierarchies: found}, nil
}

// OfConfig returns the group that linux.cgroupsPath of an OCI runtime config
// names, as runc's cgroupfs driver understands it: an absolute path counts from
// the root of every hierarchy, another one from the cgroup of this process (see
// hierarchy.BelowOwn), and none at all is the container's id. What climbs with
// ".." stays below where it begins.
func OfConfig(root, cgroupsPath, id string) (*Group, error) {
	if cgroupsPath == "" {
		cgroupsPath = id
	}
	g, err := New(root, filepath.Clean("/"+cgroupsPath))
	if err != nil || filepath.IsAbs(cgroupsPath) {
		return g, err
	}
	g.Hierarchies, err = hierarchy.BelowOwn(g.Hierarchies)
	return g, err
}

// CheckPath refuses a path that is not absolute and clean, and the root.
func CheckPath(path string) error {
	switch {
	case strings.Count(path, ":") == 2 && !strings.Contains(path, "/"):
		return fmt.Errorf("%w: %q is for the systemd driver; give an absolute path such as /ps_42152", ErrBadPath, path)
	case !strings.HasPrefix(path, "/") || path != filepath.Clean(path) || path == "/":
		return fmt.Errorf("%w: %q; give an absolute path such as /ps_42152", ErrBadPath, path)
	}
	return nil
}

// In is the group's directory in one hierarchy.
func (g *Group) In(h hierarchy.Hierarchy) string { return filepath.Join(h.Mount, g.path(h)) }

// path is the group's path below the mount of a hierarchy.
func (g *Group) path(h hierarchy.Hierarchy) string { return filepath.Join("/", h.Base, g.Path) }

// Dirs are the group's directories in all hierarchies.
func (g *Group) Dirs() []string {
	dirs := make([]string, len(g.Hierarchies))
	for i, h := range g.Hierarchies {
		dirs[i] = g.In(h)
	}
	return dirs
}

// Find returns the hierarchy that has a controller, under the name of its
// version. The devices and the freezer of v2 are no controllers there, but
// part of every group.
func (g *Group) Find(controller string) (hierarchy.Hierarchy, bool) {
	var v2 *hierarchy.Hierarchy
	for i, h := range g.Hierarchies {
		if h.Has(controller) {
			return h, true
		}
		if h.Version == 2 {
			v2 = &g.Hierarchies[i]
		}
	}
	if v2 != nil && (controller == "devices" || controller == "freezer") {
		return *v2, true
	}
	return hierarchy.Hierarchy{}, false
}

// Missing lists the directories of the group that are not there.
func (g *Group) Missing() ([]string, error) {
	var missing []string
	for _, dir := range g.Dirs() {
		_, err := os.Lstat(dir)
		if errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, dir)
		} else if err != nil {
			return nil, err
		}
	}
	return missing, nil
}

// Exists says whether the group is there in any hierarchy.
func (g *Group) Exists() (bool, error) {
	missing, err := g.Missing()
	return len(missing) < len(g.Hierarchies), err
}
