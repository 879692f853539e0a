package container

import (
	"fmt"
	"math"
	"slices"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Scheduling belongs to a thread. The parent sets it for the waiting process,
// by its pid, so nothing sticks to a thread of ours; and it has the power to,
// which the root of a user namespace lacks.

var schedulerPolicies = map[specs.LinuxSchedulerPolicy]uint32{
	specs.SchedOther: unix.SCHED_NORMAL, specs.SchedFIFO: unix.SCHED_FIFO, specs.SchedRR: unix.SCHED_RR,
	specs.SchedBatch: unix.SCHED_BATCH, specs.SchedISO: 4, specs.SchedIdle: unix.SCHED_IDLE,
	specs.SchedDeadline: unix.SCHED_DEADLINE,
}

var schedulerFlags = map[specs.LinuxSchedulerFlag]uint64{
	specs.SchedFlagResetOnFork:  unix.SCHED_FLAG_RESET_ON_FORK,
	specs.SchedFlagReclaim:      unix.SCHED_FLAG_RECLAIM,
	specs.SchedFlagDLOverrun:    unix.SCHED_FLAG_DL_OVERRUN,
	specs.SchedFlagKeepPolicy:   unix.SCHED_FLAG_KEEP_POLICY,
	specs.SchedFlagKeepParams:   unix.SCHED_FLAG_KEEP_PARAMS,
	specs.SchedFlagUtilClampMin: unix.SCHED_FLAG_UTIL_CLAMP_MIN,
	specs.SchedFlagUtilClampMax: unix.SCHED_FLAG_UTIL_CLAMP_MAX,
}

// parseScheduler reads process.scheduler (sched(7)).
func parseScheduler(s *specs.Scheduler) (*unix.SchedAttr, error) {
	policy, ok := schedulerPolicies[s.Policy]
	realtime := s.Policy == specs.SchedFIFO || s.Policy == specs.SchedRR
	switch {
	case !ok:
		return nil, fmt.Errorf("%w: process.scheduler.policy %q: want one of %q", ErrInvalid, s.Policy, knownOf(schedulerPolicies))
	case s.Nice < -20 || s.Nice > 19:
		return nil, fmt.Errorf("%w: process.scheduler.nice %d: want -20 to 19", ErrInvalid, s.Nice)
	case s.Priority != 0 && !realtime:
		return nil, fmt.Errorf("%w: process.scheduler.priority is for SCHED_FIFO and SCHED_RR, not for %s", ErrInvalid, s.Policy)
	case s.Priority < 0 || s.Priority > 99:
		return nil, fmt.Errorf("%w: process.scheduler.priority %d: want 1 to 99", ErrInvalid, s.Priority)
	case s.Runtime|s.Deadline|s.Period != 0 && s.Policy != specs.SchedDeadline:
		return nil, fmt.Errorf("%w: process.scheduler.runtime, deadline and period are for SCHED_DEADLINE, not for %s", ErrInvalid, s.Policy)
	}
	a := &unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: policy, Nice: s.Nice, Priority: uint32(s.Priority),
		Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period,
	}
	for _, name := range s.Flags {
		flag, ok := schedulerFlags[name]
		if !ok {
			return nil, fmt.Errorf("%w: process.scheduler flag %q: want one of %q", ErrInvalid, name, knownOf(schedulerFlags))
		}
		a.Flags |= flag
	}
	return a, nil
}

var ioClasses = map[specs.IOPriorityClass]int{
	specs.IOPRIO_CLASS_RT: 1, specs.IOPRIO_CLASS_BE: 2, specs.IOPRIO_CLASS_IDLE: 3,
}

// parseIOPriority reads process.ioPriority as ioprio_set(2) takes it.
func parseIOPriority(p *specs.LinuxIOPriority) (int, error) {
	class, ok := ioClasses[p.Class]
	if !ok {
		return 0, fmt.Errorf("%w: process.ioPriority.class %q: want one of %q", ErrInvalid, p.Class, knownOf(ioClasses))
	}
	if p.Priority < 0 || p.Priority > 7 {
		return 0, fmt.Errorf("%w: process.ioPriority.priority %d: want 0 to 7", ErrInvalid, p.Priority)
	}
	return class<<13 | p.Priority, nil
}

// schedule gives the waiting process its scheduling and I/O priority.
func schedule(pid int, p *specs.Process) error {
	if p.Scheduler != nil {
		attr, err := parseScheduler(p.Scheduler)
		if err != nil {
			return err
		}
		if err := unix.SchedSetAttr(pid, attr, 0); err != nil {
			return fmt.Errorf("set scheduler %s: %w", p.Scheduler.Policy, err)
		}
	}
	if p.IOPriority != nil {
		value, err := parseIOPriority(p.IOPriority)
		if err != nil {
			return err
		}
		const whoProcess = 1
		if _, _, errno := unix.Syscall(unix.SYS_IOPRIO_SET, whoProcess, uintptr(pid), uintptr(value)); errno != 0 {
			return fmt.Errorf("set I/O priority %s %d: %w", p.IOPriority.Class, p.IOPriority.Priority, errno)
		}
	}
	return nil
}

// parseAffinity reads process.execCPUAffinity. An empty list is a nil mask.
func parseAffinity(a *specs.CPUAffinity) (initial, final []uint64, err error) {
	if a == nil {
		return nil, nil, nil
	}
	if initial, err = parseList(a.Initial); err == nil {
		final, err = parseList(a.Final)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("process.execCPUAffinity: %w", err)
	}
	return initial, final, nil
}

// allCPUs is what the kernel cuts down to those that a process may have: a
// container's are those of its cpuset, not those that our caller was bound to.
func allCPUs() []uint64 { return slices.Repeat([]uint64{math.MaxUint64}, maxListed/64) }

// setAffinity lets a process run on the CPUs of the mask.
func setAffinity(pid int, mask []uint64) error {
	mask = slices.Clone(mask)
	_, _, errno := unix.RawSyscall(unix.SYS_SCHED_SETAFFINITY, uintptr(pid), uintptr(8*len(mask)), uintptr(unsafe.Pointer(&mask[0])))
	if errno != 0 {
		return fmt.Errorf("set CPU affinity: none of the CPUs can be used: %w", errno)
	}
	return nil
}
