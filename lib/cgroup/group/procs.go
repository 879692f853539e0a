package group

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"shocker.sh/lib/undo"
)

// Populated says whether a process lives in the group or below it, in any
// hierarchy: a foreign runtime need not put it into all of them.
func (g *Group) Populated() (bool, error) {
	for _, h := range g.Hierarchies {
		var populated bool
		var err error
		if h.Version == 2 {
			populated, err = event(g.In(h), "populated")
		} else {
			var pids []int
			pids, err = procs(g.In(h))
			populated = len(pids) > 0
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil || populated {
			return populated, err
		}
	}
	return false, nil
}

// Procs lists the processes in the group and below it, by their pids as seen
// from here. Those that are not visible from our pid namespace are left out.
func (g *Group) Procs() ([]int, error) {
	var all []int
	for _, dir := range g.Dirs() {
		pids, err := procs(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		all = append(all, pids...)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	if len(all) > 0 && all[0] == 0 {
		all = all[1:]
	}
	return all, nil
}

// procs reads cgroup.procs of a directory and those below it; a process out of
// sight is 0.
func procs(dir string) ([]int, error) {
	var pids []int
	err := undo.WalkCgroup(dir, func(dir string) error {
		m, err := undo.CgroupMembers(dir)
		pids = append(pids, m...)
		return err
	})
	return pids, err
}

// event reads a flag of cgroup.events.
func event(dir, name string) (bool, error) {
	text, err := Read(dir, "cgroup.events")
	if err != nil {
		return false, err
	}
	return flag(text, name)
}

func flag(events, name string) (bool, error) {
	for line := range strings.Lines(events) {
		if key, value, _ := strings.Cut(strings.TrimSpace(line), " "); key == name {
			return value == "1", nil
		}
	}
	return false, fmt.Errorf("cgroup.events has no line %q", name)
}
