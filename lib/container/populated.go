package container

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	cgroups "shocker.sh/lib/cgroup/group"
	"shocker.sh/lib/record"
	"shocker.sh/lib/stage"
	"shocker.sh/lib/undo"
)

// cgroup is the container's, from the root of the tree, or "". The record that
// the store has is the one of the first stage until the last stage is ours, or
// is composed; that of a container which another's runtime has been given by
// hand tells nothing of its cgroup, but its undo does.
func cgroup(host stage.Host, c *Container) (string, error) {
	group, err := groupOf(c.Record)
	if err != nil || group != "" {
		return group, err
	}
	entries, err := undo.Open(host.RunDir(c.ID)).Entries()
	if err != nil {
		return "", err
	}
	for _, e := range slices.Backward(entries) {
		for _, d := range e.Dirs {
			if group, ok := below(host, d.Path); ok {
				return group, nil
			}
		}
		if len(e.Record) == 0 {
			continue
		}
		r, err := record.Parse(e.Record)
		if err == nil {
			group, err = groupOf(r)
		}
		if err != nil || group != "" {
			return group, err
		}
	}
	return "", nil
}

// groupOf reads linux.cgroupsPath; another manager's notation is no path.
func groupOf(r *record.Record) (string, error) {
	var group string
	_, err := r.Get(&group, "linux", "cgroupsPath")
	if !strings.HasPrefix(group, "/") {
		group = ""
	}
	return group, err
}

// below is the inverse of joining a group's path to that of its hierarchy.
func below(host stage.Host, dir string) (group string, ok bool) {
	rel, err := filepath.Rel(host.CgroupRoot, dir)
	if err != nil || strings.HasPrefix(rel, "..") {
		return "", false
	}
	if !host.CgroupV2() {
		if _, rel, ok = strings.Cut(rel, "/"); !ok {
			return "", false
		}
	}
	return "/" + rel, true
}

// populated says whether processes are in the cgroup or below it, and whether
// they are frozen.
func populated(host stage.Host, group string) (running, frozen bool, err error) {
	if group == "" {
		return false, false, nil
	}
	if host.CgroupV2() {
		return populatedV2(filepath.Join(host.CgroupRoot, group))
	}
	// Every process is somewhere in each hierarchy; the freezer's also tells
	// whether it is frozen. Where that is missing any other will do.
	hierarchies, err := os.ReadDir(host.CgroupRoot)
	if err != nil {
		return false, false, err
	}
	names := []string{"freezer"}
	for _, h := range hierarchies {
		names = append(names, h.Name())
	}
	for _, name := range names {
		dir := filepath.Join(host.CgroupRoot, name, group)
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err != nil {
			continue
		}
		running, err = populatedV1(dir)
		if err != nil || !running {
			return running, false, err
		}
		state, err := cgroups.Read(dir, "freezer.state")
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return true, strings.HasPrefix(state, "FROZEN"), err
	}
	return false, false, nil
}

// populatedV2 reads cgroup.events (Documentation/admin-guide/cgroup-v2.rst).
func populatedV2(dir string) (running, frozen bool, err error) {
	events, err := cgroups.Read(dir, "cgroup.events")
	if errors.Is(err, fs.ErrNotExist) {
		return false, false, nil
	}
	return strings.Contains(events, "populated 1"), strings.Contains(events, "frozen 1"), err
}

// populatedV1 looks for a process in the group and those below it.
func populatedV1(dir string) (bool, error) {
	found := false
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.Name() != "cgroup.procs" {
			return err
		}
		procs, err := cgroups.Read(filepath.Dir(path), "cgroup.procs")
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if len(procs) > 0 {
			found = true
			return fs.SkipAll
		}
		return err
	})
	return found, err
}
