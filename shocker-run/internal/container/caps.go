package container

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/sys"
)

// capNames are the capabilities by their number (capabilities(7)).
var capNames = [...]string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL",
	"SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE",
	"NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
	"SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT",
	"SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME",
	"SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL",
	"SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM",
	"BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
}

// caps are the five sets of a process, a bit for each capability.
type caps struct {
	bounding, effective, permitted, inheritable, ambient uint64

	unraised uint64 // ambient ones that are asked for and cannot be
}

// parseCaps reads the sets of a record. Those that are unknown or not to be
// had, as available has them, are left out and returned as refused: engines ask
// for every one they know, and the spec wants no more than a warning. What is
// ambient must be permitted and inheritable.
func parseCaps(c *specs.LinuxCapabilities, available uint64) (sets *caps, refused []string, _ error) {
	sets = &caps{}
	if c == nil {
		return sets, nil, nil
	}
	for _, s := range []struct {
		names []string
		bits  *uint64
	}{
		{c.Bounding, &sets.bounding},
		{c.Effective, &sets.effective},
		{c.Permitted, &sets.permitted},
		{c.Inheritable, &sets.inheritable},
		{c.Ambient, &sets.ambient},
	} {
		for _, name := range s.names {
			n := capNumber(name)
			switch {
			case n >= 0 && available&(1<<n) != 0:
				*s.bits |= 1 << n
			case !slices.Contains(refused, name):
				refused = append(refused, name)
			}
		}
	}
	if extra := sets.effective &^ sets.permitted; extra != 0 {
		return nil, nil, fmt.Errorf("%w: capabilities %s are effective but not permitted", ErrInvalid, capList(extra))
	}
	sets.unraised = sets.ambient &^ (sets.permitted & sets.inheritable)
	sets.ambient &^= sets.unraised
	return sets, refused, nil
}

func capNumber(name string) int {
	for n, known := range capNames {
		if name == "CAP_"+known {
			return n
		}
	}
	return -1
}

func capList(bits uint64) string {
	var names []string
	for n, name := range capNames {
		if bits&(1<<n) != 0 {
			names = append(names, "CAP_"+name)
		}
	}
	return strings.Join(names, " ")
}

// capabilities reads the sets of the process, and tells of what it cannot
// have: what this kernel or, without a user namespace of its own, our own
// process lacks.
func (c *Container) capabilities(userns bool) (err error) {
	s := c.setup
	if s.last, err = lastCap(); err != nil {
		return err
	}
	available := uint64(1)<<(s.last+1) - 1
	if !userns {
		own, err := ownCaps()
		if err != nil {
			return err
		}
		available &= own
	}
	var refused []string
	s.caps, refused, err = parseCaps(c.spec.Process.Capabilities, available)
	if len(refused) > 0 {
		c.warn(fmt.Errorf("capabilities that are unknown or not to be had are left out: %q", refused))
	}
	if err == nil && s.caps.unraised != 0 {
		c.warn(fmt.Errorf("can't raise ambient capability %s: only what is permitted and inheritable can be ambient: %w", capList(s.caps.unraised), ErrByHabit))
	}
	return err
}

// ownCaps are the capabilities that our process may use.
func ownCaps() (uint64, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, os.NewSyscallError("capget", err)
	}
	return uint64(data[0].Permitted) | uint64(data[1].Permitted)<<32, nil
}

// lastCap is the number of the last capability that this kernel knows.
func lastCap() (int, error) {
	data, err := sys.ReadKernel("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || n < 0 || n > 63 {
		return 0, fmt.Errorf("/proc/sys/kernel/cap_last_cap: %q is not the number of a capability", data)
	}
	return n, nil
}
