package resources

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"shocker.sh/lib/cgroup/group"
)

// cpuset is the same on v1 and v2.
func cpuset(r *specs.LinuxResources) ([]value, error) {
	if r.CPU == nil {
		return nil, nil
	}
	var values []value
	for _, f := range []struct{ key, file, list string }{
		{"cpus", "cpuset.cpus", r.CPU.Cpus},
		{"mems", "cpuset.mems", r.CPU.Mems},
	} {
		if f.list == "" {
			continue
		}
		if _, ok := Numbers(f.list); !ok {
			return nil, fmt.Errorf("%w: linux.resources.cpu.%s: %q is no list such as 0-2,4", ErrInvalid, f.key, f.list)
		}
		values = append(values, value{file: f.file, text: f.list, same: sameCPUs})
	}
	return values, nil
}

// cpu1 follows runc: 0 means "not set", except for idle and burst.
func cpu1(r *specs.LinuxResources) ([]value, error) {
	c := r.CPU
	if c == nil {
		return nil, nil
	}
	var values []value
	if c.Shares != nil && *c.Shares != 0 {
		values = append(values, value{file: "cpu.shares", text: utoa(*c.Shares), verify: true})
	}
	if c.Period != nil && *c.Period != 0 {
		values = append(values, value{file: "cpu.cfs_period_us", text: utoa(*c.Period)})
	}
	if c.Quota != nil && *c.Quota != 0 {
		values = append(values, value{file: "cpu.cfs_quota_us", text: itoa(*c.Quota)})
	}
	if c.Burst != nil { // since kernel 5.14
		values = append(values, value{file: "cpu.cfs_burst_us", text: utoa(*c.Burst), optional: true})
	}
	if c.RealtimePeriod != nil && *c.RealtimePeriod != 0 {
		values = append(values, value{file: "cpu.rt_period_us", text: utoa(*c.RealtimePeriod)})
	}
	if c.RealtimeRuntime != nil && *c.RealtimeRuntime != 0 {
		values = append(values, value{file: "cpu.rt_runtime_us", text: itoa(*c.RealtimeRuntime)})
	}
	if c.Idle != nil {
		values = append(values, value{file: "cpu.idle", text: itoa(*c.Idle)})
	}
	return values, nil
}

func cpu2(r *specs.LinuxResources) ([]value, error) {
	c := r.CPU
	if c == nil {
		return nil, nil
	}
	var values []value
	if c.Shares != nil && *c.Shares != 0 {
		values = append(values, value{file: "cpu.weight", text: utoa(Weight(*c.Shares))})
	}
	values = append(values, cpuMax(c)...)
	if c.Burst != nil {
		values = append(values, value{file: "cpu.max.burst", text: utoa(*c.Burst)})
	}
	if c.Idle != nil {
		values = append(values, value{file: "cpu.idle", text: itoa(*c.Idle)})
	}
	return values, nil
}

// cpuOnly1: cgroup v2 knows no real-time limits.
func cpuOnly1(r *specs.LinuxResources) (all []setting) {
	c := r.CPU
	if c == nil {
		return nil
	}
	if n := c.RealtimePeriod; n != nil && *n != 0 {
		all = append(all, setting{"cpu.realtimePeriod", *n, func() { c.RealtimePeriod = nil }})
	}
	if n := c.RealtimeRuntime; n != nil && *n != 0 {
		all = append(all, setting{"cpu.realtimeRuntime", *n, func() { c.RealtimeRuntime = nil }})
	}
	return all
}

// WithQuota completes a quota by the group's period, or a period by its quota:
// systemd keeps both in one number, and rounds it.
func WithQuota(g *group.Group, r *specs.LinuxResources) (*specs.LinuxResources, error) {
	if r == nil || r.CPU == nil {
		return r, nil
	}
	hasQuota, hasPeriod := amount(r.CPU.Quota) != 0, r.CPU.Period != nil && *r.CPU.Period != 0
	h, ok := g.Find("cpu")
	if !ok || hasQuota == hasPeriod {
		return r, nil
	}
	files := []string{"cpu.cfs_quota_us", "cpu.cfs_period_us"}
	if h.Version == 2 {
		files = []string{"cpu.max"}
	}
	var have []string
	for _, file := range files {
		text, err := group.Read(g.In(h), file)
		if err != nil {
			return nil, err
		}
		have = append(have, strings.Fields(text)...)
	}
	cpu := *r.CPU
	var quota int64 = -1 // max
	period, err := strconv.ParseUint(have[len(have)-1], 10, 64)
	if err == nil && have[0] != "max" {
		quota, err = strconv.ParseInt(have[0], 10, 64)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", files[0], err)
	}
	if hasQuota {
		cpu.Period = &period
	} else {
		cpu.Quota = &quota
	}
	whole := *r
	whole.CPU = &cpu
	return &whole, nil
}

// cpuMax is "QUOTA PERIOD" in microseconds. Of two that are not both given,
// the other stays as it is.
func cpuMax(c *specs.LinuxCPU) []value {
	quota, period := "", ""
	if c.Quota != nil && *c.Quota != 0 {
		quota = "max"
		if *c.Quota > 0 {
			quota = itoa(*c.Quota)
		}
	}
	if c.Period != nil && *c.Period != 0 {
		period = utoa(*c.Period)
	}
	v := value{file: "cpu.max", text: quota}
	switch {
	case quota == "" && period == "":
		return nil
	case period == "": // the kernel keeps the period
		v.same = func(have, text string) bool { return strings.HasPrefix(have, text+" ") }
	case quota == "":
		v.text = period
		v.same = func(have, text string) bool { return strings.HasSuffix(have, " "+text) }
		v.with = func(have, text string) string {
			quota, _, _ := strings.Cut(have, " ")
			return quota + " " + text
		}
	default:
		v.text += " " + period
	}
	return []value{v}
}

// Weight converts cpu.shares (2 to 262144, 1024 by default) to cpu.weight (1
// to 10000, 100 by default). The curve goes through all three pairs; runc 1.3.2
// and crun 1.23 have the same.
func Weight(shares uint64) uint64 {
	switch {
	case shares <= 2:
		return 1
	case shares >= 262144:
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}

func itoa(n int64) string  { return strconv.FormatInt(n, 10) }
func utoa(n uint64) string { return strconv.FormatUint(n, 10) }
