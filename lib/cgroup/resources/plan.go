// Package resources turns linux.resources of an OCI runtime config into values
// of cgroup files, writes them, and compares them with what the kernel says.
//
// One file a controller holds what it takes of the config, for cgroup v1 and
// v2; this one holds what all have in common. A plan is made, and the config
// refused, before anything is touched.
package resources

import (
	"fmt"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"shocker.sh/lib/cgroup/devices"
	"shocker.sh/lib/cgroup/group"
)

// value is what one file of a controller shall hold.
type value struct {
	file, text string
	// same tells whether what the file holds means text; nil: it is equal.
	same func(have, text string) bool
	// instead is written where the kernel has no such file.
	instead *value
	// optional values are left out where the kernel has no such file.
	optional bool
	// verify reads the file after writing: the kernel changes such a value
	// to one that it allows without a word.
	verify bool
	// with makes what is written of what the file holds and text, which is
	// then a part of it; nil: text is all of it.
	with func(have, text string) string
	// before says what brings back what the file holds, for a value that
	// stands there beside others; nil: have does.
	before func(have, text string) string
}

// controller says what one controller takes of the config.
type controller struct {
	v1, v2 string // its name; "" where it does not exist
	plan1  func(*specs.LinuxResources) ([]value, error)
	plan2  func(*specs.LinuxResources) ([]value, error)
	// only1 lists what is asked for of which v2 has no file; nil: it has all.
	only1 func(*specs.LinuxResources) []setting
}

var controllers = []controller{
	{"cpuset", "cpuset", cpuset, cpuset, nil},
	{"cpu", "cpu", cpu1, cpu2, cpuOnly1},
	{"memory", "memory", memory1, memory2, memoryOnly1},
	{"pids", "pids", pids, pids, nil},
	{"blkio", "io", blkio, io, blkioOnly1},
	{"hugetlb", "hugetlb", hugetlb1, hugetlb2, nil},
	{"rdma", "rdma", rdma, rdma, nil},
	{"net_cls", "", classID, nil, nil},
	{"net_prio", "", priorities, nil, nil},
}

// like are the controllers of v2 that a group gets even if it has no limit of
// theirs, for the figures they keep.
var like = []string{"cpu", "memory", "pids", "io"}

// Plan is what a config means for one group.
type Plan struct {
	group   *group.Group
	steps   []step
	devices *devices.Filter // nil: leave alone
	atMost  int64           // memory in use above this is an error; 0: any
}

// step is a list of values for one directory.
type step struct {
	controller string
	dir        string
	values     []value
}

// New works out what r means for g, on the hierarchies of this machine. A nil
// r asks for nothing.
func New(g *group.Group, r *specs.LinuxResources) (*Plan, error) {
	p := &Plan{group: g}
	if r == nil {
		return p, nil
	}
	for _, c := range controllers {
		if err := p.add(c, r); err != nil {
			return nil, err
		}
	}
	if err := p.addUnified(r.Unified); err != nil {
		return nil, err
	}
	if m := r.Memory; m != nil && m.CheckBeforeUpdate != nil && *m.CheckBeforeUpdate {
		p.atMost = amount(m.Limit)
	}
	if r.Devices == nil {
		return p, nil
	}
	filter, err := devices.New(r.Devices)
	if err != nil {
		return nil, err
	}
	if _, ok := g.Find("devices"); !ok {
		return nil, fmt.Errorf("linux.resources.devices: %w", group.ErrNoController)
	}
	p.devices = filter
	return p, nil
}

func (p *Plan) add(c controller, r *specs.LinuxResources) error {
	for _, form := range []struct {
		version int
		name    string
		plan    func(*specs.LinuxResources) ([]value, error)
	}{{1, c.v1, c.plan1}, {2, c.v2, c.plan2}} {
		if form.plan == nil {
			continue
		}
		h, ok := p.group.Find(form.name)
		if !ok || h.Version != form.version {
			continue
		}
		if form.version == 2 && c.only1 != nil {
			if s := c.only1(r); len(s) > 0 {
				return fmt.Errorf("%w: linux.resources.%s: %v: cgroup v2 has no such setting", ErrInvalid, s[0].key, s[0].value)
			}
		}
		values, err := form.plan(r)
		if err != nil {
			return err
		}
		p.put(form.name, p.group.In(h), values)
		return nil
	}
	// No hierarchy has it: that is an error only if the config wants it.
	values, err := c.plan1(r)
	if err == nil && len(values) > 0 {
		err = fmt.Errorf("%s (for %s = %s): %w", c.v1, values[0].file, values[0].text, group.ErrNoController)
	}
	return err
}

func (p *Plan) put(controller, dir string, values []value) {
	if len(values) > 0 {
		p.steps = append(p.steps, step{controller, dir, values})
	}
}

// Controllers are those of cgroup v2 that the plan wants handed down.
func (p *Plan) Controllers() group.Controllers {
	want := group.Controllers{Like: like}
	for _, s := range p.steps {
		h, ok := p.group.Find(s.controller)
		if ok && h.Version == 2 && h.Has(s.controller) && !slices.Contains(want.Need, s.controller) {
			want.Need = append(want.Need, s.controller)
		}
	}
	return want
}
