package resources

import specs "github.com/opencontainers/runtime-spec/specs-go"

// pids follows runc: below 0 is no limit, and 0 is one, which is written as 1
// (systemd knows no 0): either way the first process can make no other.
func pids(r *specs.LinuxResources) ([]value, error) {
	if r.Pids == nil || r.Pids.Limit == nil {
		return nil, nil
	}
	text := "max"
	switch limit := *r.Pids.Limit; {
	case limit > 0:
		text = itoa(limit)
	case limit == 0:
		text = "1"
	}
	return []value{{file: "pids.max", text: text}}, nil
}
