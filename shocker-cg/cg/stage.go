package cg

import (
	"context"
	"fmt"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"

	"shocker.sh/lib/applet"
	"shocker.sh/lib/cgroup/group"
	"shocker.sh/lib/cgroup/resources"
	"shocker.sh/lib/record"
	"shocker.sh/lib/stage"
	"shocker.sh/lib/undo"
)

// Stage makes a container's cgroup, PARENT/ID in every hierarchy, and limits
// it. It sets linux.cgroupsPath, unless the record has one: then that group is
// used, and made if need be. It applies linux.resources.
var Stage = applet.Stage{
	Name:     group.Stage,
	Synopsis: "cgroups of containers: make, limit, read, freeze, kill",
	Description: "up makes the cgroup of each record, named after the container below SHOCKER_CGROUP,\n" +
		"limits it as linux.resources says, and sets linux.cgroupsPath. A record that has a\n" +
		"cgroupsPath keeps it; a group that is there already must be empty and not frozen.\n" +
		"Flags win over the record, the record over SHOCKER_CPU_SHARE, SHOCKER_MEM_LIMIT and\n" +
		"the defaults. The group stays until down, or rm, so that its files can be read after\n" +
		"the container has ended; down kills what still runs in it.",
	Flags: flags,
	Open: func(host stage.Host, c *cli.Context) (stage.Handler, error) {
		limits, err := limits(c)
		return &handler{host, limits}, err
	},
	Commands: commands,
}

// Applet is the stage as a program.
var Applet = Stage.Applet()

type handler struct {
	host   stage.Host
	limits []limit
}

// Up makes and limits the group.
func (h *handler) Up(_ context.Context, r *record.Record) (retErr error) {
	if err := put(r, h.limits); err != nil {
		return err
	}
	g, given, err := find(h.host, r)
	if err != nil {
		return err
	}
	plan, err := plan(g, r)
	if err != nil {
		return err
	}
	unmake, err := g.Make(undo.Open(h.host.RunDir(r.ID())), given, plan.Controllers())
	if err != nil {
		return err
	}
	if err = plan.Apply(); err == nil && !given {
		err = r.Set(g.Path, "linux", "cgroupsPath")
	}
	if err != nil {
		if uerr := unmake(); uerr != nil {
			err = fmt.Errorf("%w; and then: %w", err, uerr)
		}
	}
	return err
}

// Down kills what runs in the group and removes it, if it is ours.
func (h *handler) Down(_ context.Context, r *record.Record) error {
	return undo.Open(h.host.RunDir(r.ID())).Replay(group.Stage)
}

// Check says in which hierarchy the group is missing and which of its files
// hold something else than the record says.
func (h *handler) Check(_ context.Context, r *record.Record) error {
	g, given, err := find(h.host, r)
	if err != nil {
		return err
	}
	if !given {
		return fmt.Errorf("the record has no linux.cgroupsPath: %w", ErrGone)
	}
	missing, err := g.Missing()
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: %s", ErrGone, strings.Join(missing, ", "))
	}
	plan, err := plan(g, r)
	if err != nil {
		return err
	}
	return plan.Check()
}

// find returns the group of a record, and whether the record names it itself.
// A path that is not absolute counts from the parent of our groups.
func find(h stage.Host, r *record.Record) (g *group.Group, given bool, err error) {
	var path string
	if _, err := r.Get(&path, "linux", "cgroupsPath"); err != nil {
		return nil, false, err
	}
	given = path != ""
	switch {
	case !given:
		path = below(h, r.ID())
	case !strings.HasPrefix(path, "/") && !strings.Contains(path, ":"):
		path = below(h, path)
	}
	g, err = group.New(h.CgroupRoot, path)
	if err == nil {
		g.Owner = h.Owner()
	}
	return g, given, err
}

func below(h stage.Host, path string) string {
	return strings.TrimSuffix(h.CgroupParent, "/") + "/" + path
}

func plan(g *group.Group, r *record.Record) (*resources.Plan, error) {
	var res *specs.LinuxResources
	if _, err := r.Get(&res, "linux", "resources"); err != nil {
		return nil, err
	}
	return resources.New(g, res)
}
