package cg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"shocker.sh/lib/cgroup/group"
	"shocker.sh/lib/cgroup/resources"
	"shocker.sh/lib/cgroup/stats"
	"shocker.sh/lib/record"
	"shocker.sh/lib/stage"
)

// Group is the cgroup of one container, in all hierarchies of the machine. It
// has methods to ask (Exists, Populated, Procs, Frozen), to act (Freeze, Thaw,
// Kill, Attach) and to find its directories (Dirs). Asking a group that is not
// there finds nothing in it; Kill of one is done at once; Freeze, Thaw and
// Attach say fs.ErrNotExist or ErrGone.
type Group struct{ *group.Group }

// Stats of a group: what it uses and what limits it has.
type Stats = stats.Stats

// Of returns the group that a record names, or that `up` would make for it.
func Of(h stage.Host, r *record.Record) (Group, error) {
	g, _, err := find(h, r)
	return Group{g}, err
}

// At returns the group at an absolute path in the cgroup tree: /ps_42152.
func At(h stage.Host, path string) (Group, error) {
	g, err := group.New(h.CgroupRoot, path)
	return Group{g}, err
}

// Named returns the group of a container by its id: where its record in the
// store says, or below the parent if it has none there. It is ErrGone if there
// is no such group.
func Named(h stage.Host, id string) (Group, error) {
	if err := record.CheckID(id); err != nil {
		return Group{}, err
	}
	g, err := At(h, below(h, id))
	data, rerr := os.ReadFile(filepath.Join(h.Store, "containers", id, "config.json"))
	switch {
	case rerr == nil:
		var r *record.Record
		if r, err = record.Parse(data); err == nil {
			g, err = Of(h, r)
		}
	case !errors.Is(rerr, fs.ErrNotExist):
		err = rerr
	}
	if err != nil {
		return Group{}, err
	}
	exists, err := g.Exists()
	if err == nil && !exists {
		err = fmt.Errorf("%s: %w (%s)", id, ErrGone, g.Dirs()[0])
	}
	return g, err
}

// Stats reads what the group uses.
func (g Group) Stats() (*Stats, error) { return stats.Read(g.Group) }

// Update applies resources to a group, in use or not. What they do not name, or
// give as 0, stays as it is; so does all if the kernel refuses a part.
func (g Group) Update(r *specs.LinuxResources) error {
	plan, err := resources.New(g.Group, r)
	if err != nil {
		return err
	}
	return plan.Update()
}
