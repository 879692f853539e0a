package systemd

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/godbus/dbus/v5"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"shocker.sh/lib/cgroup"
	"shocker.sh/lib/cgroup/devices"
	"shocker.sh/lib/cgroup/resources"
)

// property is (sv), aux is (sa(sv)).
type (
	property struct {
		Name  string
		Value dbus.Variant
	}
	aux struct {
		Name       string
		Properties []property
	}
)

func prop(name string, value any) property { return property{name, dbus.MakeVariant(value)} }

// unitProperties are what the scope is made with. The group is delegated: what
// is below it is the container's. All is counted from the start, and a scope
// that fails is forgotten like one that ends.
func unitProperties(u cgroup.Unit, pid int) ([]property, error) {
	all := []property{
		prop("Description", "container "+strings.TrimSuffix(u.Name, ".scope")),
		prop("Slice", u.Slice),
		prop("Delegate", true),
		prop("PIDs", []uint32{uint32(pid)}),
		prop("MemoryAccounting", true),
		prop("CPUAccounting", true),
		prop("IOAccounting", true),
		prop("TasksAccounting", true),
		prop("DefaultDependencies", false),
		prop("CollectMode", "inactive-or-failed"),
	}
	for _, name := range slices.Sorted(maps.Keys(u.Properties)) {
		v, err := dbus.ParseVariant(u.Properties[name], dbus.Signature{})
		if err != nil {
			return nil, fmt.Errorf("property %s = %s of %s: %w", name, u.Properties[name], u.Name, err)
		}
		if n, ok := v.Value().(int32); ok && strings.HasSuffix(name, "Sec") { // seconds, for people
			name, v = strings.TrimSuffix(name, "Sec")+"USec", dbus.MakeVariant(uint64(n)*1e6)
		}
		all = append(all, property{name, v})
	}
	return all, nil
}

// limits are what systemd can be told of linux.resources. What is not set, or
// 0, is left alone, as in the files of the group, which are written afterwards:
// they also have what systemd does not know.
func limits(version int, r *specs.LinuxResources) ([]property, error) {
	if r == nil {
		return nil, nil
	}
	all, err := deviceLimits(r.Devices)
	if err != nil {
		return nil, err
	}
	memory := memory1
	if version == 2 {
		memory = memory2
	}
	all = append(all, memory(r.Memory)...)
	if r.CPU != nil {
		cpu, err := cpuLimits(version, r.CPU)
		if err != nil {
			return nil, err
		}
		all = append(all, cpu...)
	}
	if r.Pids != nil && r.Pids.Limit != nil {
		all = append(all, prop("TasksMax", infinite(max(*r.Pids.Limit, -1), 1)))
	}
	if b := r.BlockIO; b != nil && b.Weight != nil && *b.Weight != 0 && version == 1 {
		all = append(all, prop("BlockIOWeight", uint64(*b.Weight)))
	}
	unified, err := unifiedLimits(r.Unified)
	return append(all, unified...), err
}

// infinite is n as systemd counts: all bits are "infinity". least stands for 0.
func infinite(n, least int64) uint64 {
	if n < 0 {
		return math.MaxUint64
	}
	return uint64(max(n, least))
}

// amount is a number that is neither absent nor 0.
func amount(n *int64) (int64, bool) {
	if n == nil {
		return 0, false
	}
	return *n, *n != 0
}

func memory1(m *specs.LinuxMemory) []property {
	if m == nil {
		return nil
	}
	if limit, ok := amount(m.Limit); ok {
		return []property{prop("MemoryLimit", infinite(limit, 0))}
	}
	return nil
}

// memory2: the config counts swap together with memory, v2 and systemd alone.
func memory2(m *specs.LinuxMemory) (all []property) {
	if m == nil {
		return nil
	}
	limit, limited := amount(m.Limit)
	swap, swapped := amount(m.Swap)
	if limited {
		all = append(all, prop("MemoryMax", infinite(limit, 0)))
	}
	if n, ok := amount(m.Reservation); ok {
		all = append(all, prop("MemoryLow", infinite(n, 0)))
	}
	switch {
	case swap == -1, !swapped && limit == -1:
		all = append(all, prop("MemorySwapMax", infinite(-1, 0)))
	case swapped:
		all = append(all, prop("MemorySwapMax", uint64(swap-max(limit, 0))))
	}
	return all
}

func cpuLimits(version int, c *specs.LinuxCPU) (all []property, err error) {
	shares := c.Shares != nil && *c.Shares != 0
	switch {
	case version == 2 && c.Idle != nil && *c.Idle == 1:
		all = append(all, prop("CPUWeight", uint64(0))) // "idle"; from 252 on
	case shares && version == 2:
		all = append(all, prop("CPUWeight", resources.Weight(*c.Shares)))
	case shares:
		all = append(all, prop("CPUShares", *c.Shares))
	}
	quota, _ := amount(c.Quota)
	var period uint64
	if c.Period != nil {
		period = *c.Period
	}
	all = append(all, quotaLimits(quota, period)...)
	for name, list := range map[string]string{"AllowedCPUs": c.Cpus, "AllowedMemoryNodes": c.Mems} {
		if list == "" {
			continue
		}
		set, err := mask(list)
		if err != nil {
			return nil, err
		}
		all = append(all, prop(name, set))
	}
	return all, nil
}

// idle finds what systemd knows since 252.
func idle(p property) bool { return p.Name == "CPUWeight" && p.Value.Value() == uint64(0) }

// quotaLimits: systemd keeps whole percents of a processor's time, and rounds
// down; a container gets rather more than it asked for.
func quotaLimits(quota int64, period uint64) (all []property) {
	const (
		second        = 1e6 // µs
		percent       = second / 100
		defaultPeriod = 1e5
	)
	if period != 0 {
		all = append(all, prop("CPUQuotaPeriodUSec", period))
	}
	switch {
	case quota < 0:
		all = append(all, prop("CPUQuotaPerSecUSec", infinite(-1, 0)))
	case quota > 0:
		if period == 0 {
			period = defaultPeriod
		}
		perSecond := math.Ceil(float64(quota)*second/float64(period)/percent) * percent
		all = append(all, prop("CPUQuotaPerSecUSec", uint64(perSecond)))
	}
	return all
}

// mask is a list of numbers, 0-2,4, as bits, the lowest first.
func mask(list string) ([]byte, error) {
	numbers, ok := resources.Numbers(list)
	if !ok {
		return nil, fmt.Errorf("%q: %w", list, resources.ErrInvalid)
	}
	var bits []byte
	for _, n := range numbers {
		for len(bits) <= n/8 {
			bits = append(bits, 0)
		}
		bits[n/8] |= 1 << (n % 8)
	}
	return bits, nil
}

// unifiedLimits finds the properties of those files that have one.
func unifiedLimits(files map[string]string) (all []property, err error) {
	names := map[string]string{
		"cpu.weight": "CPUWeight", "memory.high": "MemoryHigh", "memory.low": "MemoryLow", "memory.min": "MemoryMin",
		"memory.max": "MemoryMax", "memory.swap.max": "MemorySwapMax", "pids.max": "TasksMax",
	}
	sets := map[string]string{"cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"}
	for _, file := range slices.Sorted(maps.Keys(files)) {
		text := strings.TrimSpace(files[file])
		switch {
		case names[file] != "":
			n, err := number(text)
			if err != nil {
				return nil, fmt.Errorf("linux.resources.unified: %s: %w", file, err)
			}
			all = append(all, prop(names[file], n))
		case sets[file] != "":
			set, err := mask(text)
			if err != nil {
				return nil, fmt.Errorf("linux.resources.unified: %s: %w", file, err)
			}
			all = append(all, prop(sets[file], set))
		case file == "cpu.max":
			quota, period, _ := strings.Cut(text, " ")
			p := uint64(0)
			if period != "" {
				if p, err = number(period); err != nil {
					return nil, fmt.Errorf("linux.resources.unified: %s: %w", file, err)
				}
			}
			n, err := number(quota)
			if err != nil {
				return nil, fmt.Errorf("linux.resources.unified: %s: %w", file, err)
			}
			all = append(all, quotaLimits(int64(n), p)...) // "max" is -1
		}
	}
	return all, nil
}

// number reads a number of a file; "max" has all bits.
func number(text string) (uint64, error) {
	if text == "max" {
		return math.MaxUint64, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		err = fmt.Errorf("%w: %q is no number", resources.ErrInvalid, text)
	}
	return n, err
}

// allowed is an entry of DeviceAllow, (ss).
type allowed struct{ Device, Access string }

// deviceLimits tells systemd which devices the container may use, so that it
// does not take them away when it applies its own rules anew (nvidia-container-
// toolkit#48). It cannot say "all but these": then only our rules apply.
func deviceLimits(rules []specs.LinuxDeviceCgroup) ([]property, error) {
	if rules == nil {
		return nil, nil
	}
	f, err := devices.New(rules)
	if err != nil {
		return nil, err
	}
	policy, list := "strict", []allowed{}
	all, exceptions := f.Rules()
	if all {
		policy = "auto"
	} else {
		for _, e := range exceptions {
			device, err := deviceName(e)
			if err != nil {
				return nil, err
			}
			list = append(list, allowed{device, e.Access})
		}
	}
	// An empty list takes away what was allowed before. The policy comes last: else
	// systemd thinks that the unit has to be reloaded (its issue 35710).
	properties := []property{prop("DeviceAllow", []allowed{})}
	if len(list) > 0 {
		properties = append(properties, prop("DeviceAllow", list))
	}
	return append(properties, prop("DevicePolicy", policy)), nil
}

// deviceName is the path of a device, whether it exists or not, or a whole
// major number.
func deviceName(e devices.Exception) (string, error) {
	kind := map[byte]string{'b': "block", 'c': "char"}[e.Kind]
	switch {
	case e.Major < 0 && e.Minor < 0:
		return kind + "-*", nil
	case e.Major < 0:
		return "", fmt.Errorf("%w: systemd cannot allow minor number %d of every major", devices.ErrInvalid, e.Minor)
	case e.Minor < 0:
		return fmt.Sprintf("%s-%d", kind, e.Major), nil
	}
	return fmt.Sprintf("/dev/%s/%d:%d", kind, e.Major, e.Minor), nil
}
