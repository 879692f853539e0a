package resources

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"shocker.sh/lib/cgroup/group"
)

// setting is one key of a config that asks for something.
type setting struct {
	key   string // below linux.resources
	value any
	clear func()
}

// onlyInV1 are the settings in r of a controller of cgroup v2 that has files for
// them in v1 only.
func onlyInV1(controller string, r *specs.LinuxResources) (all []setting) {
	add := func(key string, value any, clear func()) { all = append(all, setting{key, value, clear}) }
	switch controller {
	case "memory":
		m := r.Memory
		if m == nil {
			break
		}
		if m.Swappiness != nil && *m.Swappiness != unset {
			add("memory.swappiness", *m.Swappiness, func() { m.Swappiness = nil })
		}
		if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
			add("memory.disableOOMKiller", true, func() { m.DisableOOMKiller = nil })
		}
	case "cpu":
		c := r.CPU
		if c == nil {
			break
		}
		if n := c.RealtimePeriod; n != nil && *n != 0 {
			add("cpu.realtimePeriod", *n, func() { c.RealtimePeriod = nil })
		}
		if n := c.RealtimeRuntime; n != nil && *n != 0 {
			add("cpu.realtimeRuntime", *n, func() { c.RealtimeRuntime = nil })
		}
	case "io":
		b := r.BlockIO
		if b == nil {
			break
		}
		if w := number(b.LeafWeight); w != 0 {
			add("blockIO.leafWeight", w, func() { b.LeafWeight = nil })
		}
		for i := range b.WeightDevice {
			d := &b.WeightDevice[i]
			if w := number(d.LeafWeight); w != 0 {
				add("blockIO.weightDevice.leafWeight", w, func() { d.LeafWeight = nil })
			}
		}
	}
	return all
}

// DropVersion1 takes out of r what g's controllers have no file for because they
// are of cgroup v2, and returns the keys. New refuses such a config. But users of
// engines ask for it unawares, and runc says nothing: they need a warning.
func DropVersion1(g *group.Group, r *specs.LinuxResources) (keys []string) {
	for _, c := range controllers {
		if h, ok := g.Find(c.v2); !ok || h.Version != 2 {
			continue
		}
		for _, s := range onlyInV1(c.v2, r) {
			keys = append(keys, s.key)
			s.clear()
		}
	}
	return keys
}
