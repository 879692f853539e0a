package resources

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"shocker.sh/lib/cgroup/group"
)

// DropVersion1 takes out of r what g's controllers have no file for because they
// are of cgroup v2, and returns the keys. New refuses such a config. But users of
// engines ask for it unawares, and runc says nothing: they need a warning.
func DropVersion1(g *group.Group, r *specs.LinuxResources) (keys []string) {
	on2 := func(controller string) bool {
		h, ok := g.Find(controller)
		return ok && h.Version == 2
	}
	drop := func(key string, asked bool) {
		if asked {
			keys = append(keys, key)
		}
	}
	if m := r.Memory; m != nil && on2("memory") {
		drop("memory.swappiness", m.Swappiness != nil && *m.Swappiness != unset)
		drop("memory.disableOOMKiller", m.DisableOOMKiller != nil && *m.DisableOOMKiller)
		m.Swappiness, m.DisableOOMKiller = nil, nil
	}
	if c := r.CPU; c != nil && on2("cpu") {
		drop("cpu.realtimePeriod", c.RealtimePeriod != nil && *c.RealtimePeriod != 0)
		drop("cpu.realtimeRuntime", c.RealtimeRuntime != nil && *c.RealtimeRuntime != 0)
		c.RealtimePeriod, c.RealtimeRuntime = nil, nil
	}
	if b := r.BlockIO; b != nil && on2("io") {
		drop("blockIO.leafWeight", number(b.LeafWeight) != 0)
		b.LeafWeight = nil
		for i := range b.WeightDevice {
			drop("blockIO.weightDevice.leafWeight", number(b.WeightDevice[i].LeafWeight) != 0)
			b.WeightDevice[i].LeafWeight = nil
		}
	}
	return keys
}
