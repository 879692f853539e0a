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

// DropVersion1 takes out of r what g's controllers have no file for because they
// are of cgroup v2, and returns the keys. New refuses such a config. But users of
// engines ask for it unawares, and runc says nothing: they need a warning.
func DropVersion1(g *group.Group, r *specs.LinuxResources) (keys []string) {
	for _, c := range controllers {
		if h, ok := g.Find(c.v2); !ok || h.Version != 2 || c.only1 == nil {
			continue
		}
		for _, s := range c.only1(r) {
			keys = append(keys, s.key)
			s.clear()
		}
	}
	return keys
}
