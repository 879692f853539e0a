package oci

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// withDefaults adds to a container's device rules what every container may
// use: the default devices (config-linux.md), terminals, and the making of
// nodes that it cannot open. What no rule allows is denied.
func withDefaults(rules []specs.LinuxDeviceCgroup) []specs.LinuxDeviceCgroup {
	all := slices.Concat([]specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}, rules)
	for _, d := range []struct {
		kind         string
		major, minor int64
		access       string
	}{
		{"c", -1, -1, "m"},
		{"b", -1, -1, "m"},
		{"c", 1, 3, "rwm"},
		{"c", 1, 5, "rwm"},
		{"c", 1, 7, "rwm"},
		{"c", 1, 8, "rwm"},
		{"c", 1, 9, "rwm"}, // null to urandom
		{"c", 5, 0, "rwm"},
		{"c", 5, 2, "rwm"},
		{"c", 136, -1, "rwm"}, // tty, ptmx, pts
	} {
		rule := specs.LinuxDeviceCgroup{Allow: true, Type: d.kind, Access: d.access}
		if d.major >= 0 {
			rule.Major = &d.major
		}
		if d.minor >= 0 {
			rule.Minor = &d.minor
		}
		all = append(all, rule)
	}
	return all
}
