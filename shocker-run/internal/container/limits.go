package container

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/early"
	"shocker.sh/lib/spawn"
	"shocker.sh/lib/sys"
)

var rlimits = map[string]int{
	"AS": unix.RLIMIT_AS, "CORE": unix.RLIMIT_CORE, "CPU": unix.RLIMIT_CPU,
	"DATA": unix.RLIMIT_DATA, "FSIZE": unix.RLIMIT_FSIZE, "LOCKS": unix.RLIMIT_LOCKS,
	"MEMLOCK": unix.RLIMIT_MEMLOCK, "MSGQUEUE": unix.RLIMIT_MSGQUEUE, "NICE": unix.RLIMIT_NICE,
	"NOFILE": unix.RLIMIT_NOFILE, "NPROC": unix.RLIMIT_NPROC, "RSS": unix.RLIMIT_RSS,
	"RTPRIO": unix.RLIMIT_RTPRIO, "RTTIME": unix.RLIMIT_RTTIME, "SIGPENDING": unix.RLIMIT_SIGPENDING,
	"STACK": unix.RLIMIT_STACK,
}

// checkLimits refuses limits that are unknown, said twice, or upside down.
func checkLimits(p *specs.Process) error {
	seen := make(map[string]bool)
	for _, l := range p.Rlimits {
		name, ok := strings.CutPrefix(l.Type, "RLIMIT_")
		if _, known := rlimits[name]; !ok || !known {
			return fmt.Errorf("%w: rlimit %q: want one of setrlimit(2), such as RLIMIT_NOFILE", ErrInvalid, l.Type)
		}
		if seen[name] {
			return fmt.Errorf("%w: rlimit %s appears twice", ErrInvalid, l.Type)
		}
		if l.Soft > l.Hard {
			return fmt.Errorf("%w: rlimit %s: soft limit %d is above the hard one, %d", ErrInvalid, l.Type, l.Soft, l.Hard)
		}
		seen[name] = true
	}
	if p.OOMScoreAdj != nil && (*p.OOMScoreAdj < -1000 || *p.OOMScoreAdj > 1000) {
		return fmt.Errorf("%w: oomScoreAdj %d: want -1000 to 1000", ErrInvalid, *p.OOMScoreAdj)
	}
	return nil
}

// Limits are set in two steps. To raise a hard limit takes CAP_SYS_RESOURCE in
// the initial user namespace, which the parent may have and the process in its
// own has not; and only a process itself may set them once it is another user.
// So the parent raises them while it is still root, and the process sets them
// last of all, since it would be the first to meet a low one.

// raiseLimits raises those hard limits of the process that are to be higher.
func raiseLimits(pid int, p *specs.Process) error {
	for _, l := range p.Rlimits {
		resource := rlimits[strings.TrimPrefix(l.Type, "RLIMIT_")]
		var now unix.Rlimit
		err := unix.Prlimit(pid, resource, nil, &now)
		if err == nil && now.Max < l.Hard {
			now.Max = l.Hard
			err = unix.Prlimit(pid, resource, &now, nil)
		}
		if errors.Is(err, unix.EPERM) {
			return fmt.Errorf("set rlimit %s to %d:%d: %w: only a runtime with CAP_SYS_RESOURCE raises a hard limit", l.Type, l.Soft, l.Hard, err)
		}
		if err != nil {
			return fmt.Errorf("set rlimit %s to %d:%d: %w", l.Type, l.Soft, l.Hard, err)
		}
	}
	return nil
}

// limits sets the limits of the process.
func (b *builder) limits(p *specs.Process) {
	// Go has raised our own soft limit; the program gets what we were given.
	if soft, hard := early.Nofile(); hard != 0 {
		b.limit("RLIMIT_NOFILE", soft, hard)
	}
	for _, l := range p.Rlimits {
		b.limit(l.Type, l.Soft, l.Hard)
	}
}

func (b *builder) limit(name string, soft, hard uint64) {
	b.Call(fmt.Sprintf("set rlimit %s to %d:%d", name, soft, hard), unix.SYS_PRLIMIT64, 0,
		rlimits[strings.TrimPrefix(name, "RLIMIT_")], spawn.Struct(b.Table, &unix.Rlimit{Cur: soft, Max: hard}), 0)
}

// adjust gives the waiting process what the parent has to.
func adjust(pid int, p *specs.Process) error {
	if p.OOMScoreAdj != nil {
		// Its own writing would fail: after setns its files in /proc belong
		// to the host's root.
		path := fmt.Sprintf("/proc/%d/oom_score_adj", pid)
		if err := sys.WriteKernel(path, strconv.Itoa(*p.OOMScoreAdj)); err != nil {
			return err
		}
	}
	return schedule(pid, p)
}
