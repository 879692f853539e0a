package container

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
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
}

// parseCaps reads the sets of a record. Capabilities that this kernel lacks
// are left out, as engines ask for every one they know; unknown names are
// refused. What is ambient must be permitted and inheritable.
func parseCaps(c *specs.LinuxCapabilities, last int) (*caps, error) {
	if c == nil {
		return &caps{}, nil
	}
	sets := &caps{}
	for _, s := range []struct {
		name  string
		names []string
		bits  *uint64
	}{
		{"bounding", c.Bounding, &sets.bounding},
		{"effective", c.Effective, &sets.effective},
		{"permitted", c.Permitted, &sets.permitted},
		{"inheritable", c.Inheritable, &sets.inheritable},
		{"ambient", c.Ambient, &sets.ambient},
	} {
		for _, name := range s.names {
			n := capNumber(name)
			if n < 0 {
				return nil, fmt.Errorf("%w: %s capability %q", ErrInvalid, s.name, name)
			}
			if n <= last {
				*s.bits |= 1 << n
			}
		}
	}
	if extra := sets.effective &^ sets.permitted; extra != 0 {
		return nil, fmt.Errorf("%w: capabilities %s are effective but not permitted", ErrInvalid, capList(extra))
	}
	sets.ambient &= sets.permitted & sets.inheritable
	return sets, nil
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

// lastCap is the number of the last capability that this kernel knows.
func lastCap() (int, error) {
	data, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || n < 0 || n > 63 {
		return 0, fmt.Errorf("/proc/sys/kernel/cap_last_cap: %q is not the number of a capability", data)
	}
	return n, nil
}
