package cgroup

import (
	"context"
	"errors"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"shocker.sh/lib/cgroup/group"
	"shocker.sh/lib/cgroup/resources"
	"shocker.sh/lib/undo"
)

// Cgroup is the cgroup of one container.
type Cgroup struct {
	*group.Group
	unit    *Unit // nil: the tree is ours
	manager Manager
	keeper  *keeper
}

// Config is what a group is found by.
type Config struct {
	Root        string            // /sys/fs/cgroup
	CgroupsPath string            // of the OCI config
	ID          string            // of the container
	Annotations map[string]string // of the OCI config; only a manager needs them
	Manager     Manager           // nil: the tree is ours
}

// New returns the group of a container. Nothing is made.
func New(c Config) (*Cgroup, error) {
	if c.Manager == nil {
		g, err := group.OfConfig(c.Root, c.CgroupsPath, c.ID)
		return &Cgroup{Group: g}, err
	}
	u, err := ParseUnit(c.CgroupsPath, c.ID)
	if err != nil {
		return nil, err
	}
	if err := u.Annotated(c.Annotations); err != nil {
		return nil, err
	}
	path, err := u.Path()
	if err != nil {
		return nil, err
	}
	g, err := group.New(c.Root, path)
	return &Cgroup{Group: g, unit: &u, manager: c.Manager}, err
}

// Make makes and limits the group before there is a process for it. Its undo is
// in log before anything is done; on an error nothing is left. A group that is
// there already is used if it is empty and not frozen, and stays when ours go.
// Release must follow, once the container's first process is in the group.
func (c *Cgroup) Make(ctx context.Context, log *undo.Log, r *specs.LinuxResources) error {
	plan, err := resources.New(c.Group, r)
	if err != nil {
		return err
	}
	var unmake func() error
	if c.manager == nil {
		unmake, err = c.Group.Make(log, true, plan.Controllers())
	} else {
		unmake, err = c.MakeWith(log, c.unit.Name, plan.Controllers(), func() error { return c.start(ctx) })
	}
	if err != nil {
		return errors.Join(err, c.Release())
	}
	if c.manager != nil {
		err = c.manager.Set(ctx, *c.unit, c.version(), r)
	}
	if err == nil {
		err = plan.Apply()
	}
	if err != nil {
		err = errors.Join(err, c.Release(), unmake(), c.Stop(ctx))
	}
	return err
}

// start has the manager make the group, around a process that keeps it.
func (c *Cgroup) start(ctx context.Context) (err error) {
	if c.keeper, err = newKeeper(); err != nil {
		return err
	}
	return c.manager.Start(ctx, *c.unit, c.keeper.pid())
}

// Release ends what has kept the group until the container's first process was
// in it.
func (c *Cgroup) Release() error {
	if c.keeper == nil {
		return nil
	}
	k := c.keeper
	c.keeper = nil
	return k.end()
}

// version is that of cgroups which the manager uses.
func (c *Cgroup) version() int {
	if len(c.Hierarchies) == 1 {
		return c.Hierarchies[0].Version
	}
	return 1
}

// Update changes limits; see resources.Plan.Update.
func (c *Cgroup) Update(ctx context.Context, r *specs.LinuxResources) (err error) {
	if c.manager != nil {
		if r, err = resources.WithQuota(c.Group, r); err != nil {
			return err
		}
	}
	plan, err := resources.New(c.Group, r)
	if err != nil {
		return err
	}
	if c.manager == nil {
		return plan.Update()
	}
	// The kernel is asked first: what it refuses the manager must not learn.
	// It also has the last word: systemd rounds.
	return plan.Update(func() error { return c.tell(ctx, r) }, plan.Apply)
}

// tell lets the manager know. On v1 systemd takes all devices away before it
// gives those allowed: nothing may run meanwhile.
func (c *Cgroup) tell(ctx context.Context, r *specs.LinuxResources) (retErr error) {
	frozen, err := c.Frozen()
	if err != nil {
		return err
	}
	if c.version() == 1 && !frozen {
		if err := c.Freeze(ctx); err != nil {
			return err
		}
		defer func() { retErr = errors.Join(retErr, c.Thaw()) }()
	}
	return c.manager.Set(ctx, *c.unit, c.version(), r)
}

// Stop has a manager forget the group; the undo log, or Remove, removes it.
func (c *Cgroup) Stop(ctx context.Context) error {
	if c.manager == nil {
		return nil
	}
	return c.manager.Stop(ctx, *c.unit)
}

// Saved is a container's cgroup in a form to be written down.
type Saved struct {
	group.Saved
	Unit *Unit `json:"unit,omitempty"`
}

// Save returns the group as it is now, once the container's process is in it.
func (c *Cgroup) Save() (Saved, error) {
	s, err := c.Group.Save()
	return Saved{s, c.unit}, err
}

// Load returns a group that was saved; see group.Load. manager is called if the
// group is one of a manager's.
func Load(s Saved, manager func() Manager) (*Cgroup, error) {
	g, err := group.Load(s.Saved)
	c := &Cgroup{Group: g, unit: s.Unit}
	if s.Unit != nil {
		c.manager = manager()
	}
	return c, err
}
