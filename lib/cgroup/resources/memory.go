package resources

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// memory1: -1 is no limit, 0 not set. Limits of kernel memory are left out, as
// the spec allows: kernel 5.4 made them obsolete. So is useHierarchy: since 5.11
// all groups are hierarchical.
func memory1(r *specs.LinuxResources) ([]value, error) {
	m := r.Memory
	if m == nil {
		return nil, nil
	}
	limit, swap := amount(m.Limit), amount(m.Swap)
	if err := checkMemory(limit, swap); err != nil {
		return nil, err
	}
	var values []value
	if limit != 0 {
		values = append(values, value{file: "memory.limit_in_bytes", text: itoa(limit), same: sameBytes})
	}
	const memsw = "memory.memsw.limit_in_bytes" // absent without swap accounting
	switch {
	case swap == -1, swap == 0 && limit == -1: // no limit of memory takes that of swap away
		values = append(values, value{file: memsw, text: "-1", same: sameBytes, optional: true})
	case swap != 0:
		values = append(values, value{file: memsw, text: itoa(swap), same: sameBytes})
	}
	if n := amount(m.Reservation); n != 0 {
		values = append(values, value{file: "memory.soft_limit_in_bytes", text: itoa(n), same: sameBytes})
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		values = append(values, value{file: "memory.oom_control", text: "1", same: oomKillerOff, before: oomKillerBefore})
	}
	if s := m.Swappiness; s != nil && *s != unset {
		if *s > 100 {
			return nil, fmt.Errorf("%w: linux.resources.memory.swappiness: %d is not within 0 to 100", ErrInvalid, *s)
		}
		values = append(values, value{file: "memory.swappiness", text: utoa(*s)})
	}
	return values, nil
}

// unset is -1, which engines have for "leave alone", as a number without a sign.
const unset = 1<<64 - 1

// oomKillerOff: the file reads as three lines, "oom_kill_disable 1" first.
func oomKillerOff(have, _ string) bool { return sameLine(have, "oom_kill_disable 1") }

func oomKillerBefore(have, _ string) string {
	if sameLine(have, "oom_kill_disable 1") {
		return "1"
	}
	return "0"
}

// memory2: the config counts swap together with memory, cgroup v2 by itself.
func memory2(r *specs.LinuxResources) ([]value, error) {
	m := r.Memory
	if m == nil {
		return nil, nil
	}
	limit, swap := amount(m.Limit), amount(m.Swap)
	if err := checkMemory(limit, swap); err != nil {
		return nil, err
	}
	var values []value
	const swapMax = "memory.swap.max" // absent without swap accounting
	switch {
	case swap == -1, swap == 0 && limit == -1:
		values = append(values, value{file: swapMax, text: "max", optional: true})
	case swap > 0 && limit == -1:
		values = append(values, value{file: swapMax, text: itoa(swap), same: sameBytes})
	case swap > 0 && limit == 0:
		return nil, fmt.Errorf("%w: linux.resources.memory.swap: %d needs a limit of memory", ErrInvalid, swap)
	case swap > 0:
		values = append(values, value{file: swapMax, text: itoa(swap - limit), same: sameBytes, optional: swap == limit})
	}
	if limit != 0 {
		values = append(values, value{file: "memory.max", text: orMax(limit), same: sameBytes})
	}
	if n := amount(m.Reservation); n != 0 {
		values = append(values, value{file: "memory.low", text: orMax(n), same: sameBytes})
	}
	return values, nil
}

func memoryOnly1(r *specs.LinuxResources) (all []setting) {
	m := r.Memory
	if m == nil {
		return nil
	}
	if s := m.Swappiness; s != nil && *s != unset {
		all = append(all, setting{"memory.swappiness", *s, func() { m.Swappiness = nil }})
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		all = append(all, setting{"memory.disableOOMKiller", true, func() { m.DisableOOMKiller = nil }})
	}
	return all
}

func checkMemory(limit, swap int64) error {
	if limit < -1 {
		return fmt.Errorf("%w: linux.resources.memory.limit: %d bytes: want -1, which is no limit, or more", ErrInvalid, limit)
	}
	if swap < -1 || swap > 0 && limit > swap {
		return fmt.Errorf("%w: linux.resources.memory.swap: %d bytes, of memory (%d) and swap together", ErrInvalid, swap, limit)
	}
	return nil
}

func amount(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}

func orMax(n int64) string {
	if n == -1 {
		return "max"
	}
	return itoa(n)
}
