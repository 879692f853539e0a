package container

import (
	"fmt"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"shocker.sh/shocker-run/internal/nofile"
)

var rlimits = map[string]int{
	"AS": unix.RLIMIT_AS, "CORE": unix.RLIMIT_CORE, "CPU": unix.RLIMIT_CPU,
	"DATA": unix.RLIMIT_DATA, "FSIZE": unix.RLIMIT_FSIZE, "LOCKS": unix.RLIMIT_LOCKS,
	"MEMLOCK": unix.RLIMIT_MEMLOCK, "MSGQUEUE": unix.RLIMIT_MSGQUEUE, "NICE": unix.RLIMIT_NICE,
	"NOFILE": unix.RLIMIT_NOFILE, "NPROC": unix.RLIMIT_NPROC, "RSS": unix.RLIMIT_RSS,
	"RTPRIO": unix.RLIMIT_RTPRIO, "RTTIME": unix.RLIMIT_RTTIME, "SIGPENDING": unix.RLIMIT_SIGPENDING,
	"STACK": unix.RLIMIT_STACK,
}

// limits gives the waiting process its limits from outside: it could not raise
// them itself, and would meet them before its program does.
func limits(pid int, p *specs.Process) error {
	// Go has raised our own soft limit; the program gets what we were given.
	if soft, hard := nofile.Inherited(); hard != 0 {
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: soft, Max: hard}, nil); err != nil {
			return fmt.Errorf("set rlimit NOFILE: %w", err)
		}
	}
	for _, l := range p.Rlimits {
		resource, ok := rlimits[strings.TrimPrefix(l.Type, "RLIMIT_")]
		if !ok || !strings.HasPrefix(l.Type, "RLIMIT_") {
			return fmt.Errorf("%w: rlimit %q", ErrInvalid, l.Type)
		}
		if err := unix.Prlimit(pid, resource, &unix.Rlimit{Cur: l.Soft, Max: l.Hard}, nil); err != nil {
			return fmt.Errorf("set rlimit %s to %d:%d: %w", l.Type, l.Soft, l.Hard, err)
		}
	}
	if p.OOMScoreAdj != nil {
		// Its own writing would fail: after setns its files in /proc belong
		// to the host's root.
		path := fmt.Sprintf("/proc/%d/oom_score_adj", pid)
		if err := os.WriteFile(path, fmt.Append(nil, *p.OOMScoreAdj), 0); err != nil {
			return err
		}
	}
	return nil
}
