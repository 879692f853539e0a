package container

import (
	"fmt"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/spawn"
	"shocker.sh/lib/sys"
)

// clocks are those that a time namespace sets off (time_namespaces(7)).
var clocks = []string{"monotonic", "boottime"}

func checkTimeOffsets(offsets map[string]specs.LinuxTimeOffset) error {
	for clock, o := range offsets {
		if !slices.Contains(clocks, clock) {
			return fmt.Errorf("%w: timeOffsets: clock %q: want one of %q", ErrInvalid, clock, clocks)
		}
		if o.Nanosecs >= 1e9 {
			return fmt.Errorf("%w: timeOffsets: %d nanoseconds of %s: want less than a second", ErrInvalid, o.Nanosecs, clock)
		}
	}
	return nil
}

// newTime opens the time namespace that has been made for the process's
// children. It enters it later, as the offsets are fixed by the first process
// that does.
func (b *builder) newTime() *spawn.Step {
	return b.Call("open the time namespace", unix.SYS_OPENAT, unix.AT_FDCWD, "/proc/thread-self/ns/time_for_children", unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

// setTimeOffsets sets off the clocks of the process's new time namespace.
func setTimeOffsets(pid int, offsets map[string]specs.LinuxTimeOffset) error {
	var lines strings.Builder
	for _, clock := range clocks {
		if o, ok := offsets[clock]; ok {
			fmt.Fprintf(&lines, "%s %d %d\n", clock, o.Secs, o.Nanosecs)
		}
	}
	if lines.Len() == 0 {
		return nil
	}
	path := fmt.Sprintf("/proc/%d/timens_offsets", pid)
	if err := sys.WriteKernel(path, lines.String()); err != nil {
		return fmt.Errorf("set time offsets %q: %w", strings.TrimSpace(lines.String()), err)
	}
	return nil
}
