package oci

import (
	"context"
	"io"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"

	"shocker.sh/lib/applet"
	"shocker.sh/lib/cgroup/group"
	"shocker.sh/lib/cgroup/resources"
)

// groupCommands are those about a container's cgroup.
func (t *tool) groupCommands() []*cli.Command {
	return []*cli.Command{
		t.verb("pause", "stop all processes of a container where they are", nil, func(c *cli.Context, b *box) error {
			return b.freezer(c.Context, func() error {
				g, err := b.group()
				if err != nil {
					return err
				}
				return g.Freeze(c.Context)
			}, specs.StateRunning, specs.StateCreated)
		}),
		t.verb("resume", "let the processes of a paused container go on", nil, func(c *cli.Context, b *box) error {
			return b.freezer(c.Context, b.thaw, paused)
		}),
		t.verb("update", "change the limits of a container", updateFlags, func(c *cli.Context, b *box) error {
			return b.update(c, t.io.In)
		}),
		t.eventsCommand(),
	}
}

// freezer changes a container that is in one of the given states.
func (b *box) freezer(ctx context.Context, change func() error, from ...specs.ContainerState) error {
	lock, err := b.lock(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	status, pidfd, err := b.status()
	if err != nil {
		return err
	}
	if pidfd != nil {
		defer pidfd.Close()
	}
	for _, s := range from {
		if status == s {
			return change()
		}
	}
	if from[0] == paused {
		return ErrNotPaused
	}
	return ErrNotRunning
}

var updateFlags = []cli.Flag{
	&cli.StringFlag{Name: "resources", Aliases: []string{"r"}, Usage: "`FILE` of linux.resources as JSON, - for stdin, in the place of other flags; devices stay as they are"},
	&cli.StringFlag{Name: "memory", Usage: "`BYTES` of memory at most, or with k, m, g, t; -1: no limit"},
	&cli.StringFlag{Name: "memory-reservation", Usage: "`BYTES` of memory as a soft limit"},
	&cli.StringFlag{Name: "memory-swap", Usage: "`BYTES` of memory and swap together at most"},
	&cli.StringFlag{Name: "kernel-memory", Hidden: true},     // no kernel has it any more
	&cli.StringFlag{Name: "kernel-memory-tcp", Hidden: true}, // likewise
	&cli.Uint64Flag{Name: "cpu-share", Usage: "weight of processor time: `N`, 2 to 262144"},
	&cli.Int64Flag{Name: "cpu-quota", Usage: "processor time in a period, in microseconds: `N`; -1: no limit"},
	&cli.Uint64Flag{Name: "cpu-burst", Usage: "processor time beyond it that was saved, in microseconds: `N`"},
	&cli.Uint64Flag{Name: "cpu-period", Usage: "the period, in microseconds: `N`"},
	&cli.Int64Flag{Name: "cpu-idle", Usage: "`N` is 1: only what no one else wants; 0: as others"},
	&cli.Int64Flag{Name: "cpu-rt-runtime", Usage: "real-time processor time in a period, in microseconds: `N`"},
	&cli.Uint64Flag{Name: "cpu-rt-period", Usage: "the period of that, in microseconds: `N`"},
	&cli.StringFlag{Name: "cpuset-cpus", Usage: "processors that may be used: `LIST`, such as 0-2,4"},
	&cli.StringFlag{Name: "cpuset-mems", Usage: "memory nodes that may be used: `LIST`"},
	&cli.Int64Flag{Name: "pids-limit", Usage: "`N` processes and threads at most; -1: no limit"},
	&cli.UintFlag{Name: "blkio-weight", Usage: "weight of input and output: `N`, 10 to 1000"},
}

// update limits the container anew. What is not given stays as it is.
func (b *box) update(c *cli.Context, stdin *os.File) error {
	r, err := asked(c, stdin)
	if err != nil {
		return err
	}
	lock, err := b.lock(c.Context)
	if err != nil {
		return err
	}
	defer lock.Close()
	status, pidfd, err := b.status()
	if err != nil {
		return err
	}
	if status == specs.StateStopped {
		return ErrNotRunning
	}
	defer pidfd.Close()
	g, err := b.group()
	if err != nil {
		return err
	}
	// An engine that updates sends all resources of its config, in which neither
	// the devices of every container are, nor what a hook allowed beside them.
	// runc leaves them alone as well.
	r.Devices = nil
	b.dropVersion1(g.Group, r)
	return g.Update(c.Context, r)
}

// dropVersion1 warns of limits that cgroup v2 does not have, and drops them.
func (b *box) dropVersion1(g *group.Group, r *specs.LinuxResources) {
	for _, key := range resources.DropVersion1(g, r) {
		b.tool.log.warn("linux.resources." + key + ": left out: cgroup v2 has no such setting")
	}
}

// asked reads the limits that the command line asks for.
func asked(c *cli.Context, stdin *os.File) (*specs.LinuxResources, error) {
	r := &specs.LinuxResources{}
	switch path := c.String("resources"); path {
	case "":
	case "-":
		return r, decode(c.Context, "resources on stdin", r, func() (io.ReadCloser, error) { return io.NopCloser(stdin), nil })
	default:
		return r, readJSON(c.Context, path, r)
	}
	memory, cpu := &specs.LinuxMemory{}, &specs.LinuxCPU{Cpus: c.String("cpuset-cpus"), Mems: c.String("cpuset-mems")}
	for flag, to := range map[string]**int64{
		"memory": &memory.Limit, "memory-reservation": &memory.Reservation, "memory-swap": &memory.Swap,
	} {
		if !c.IsSet(flag) {
			continue
		}
		text, n := c.String(flag), int64(-1)
		if text != "-1" {
			var err error
			if n, err = resources.ParseBytes(text, 1); err != nil {
				return nil, applet.Usagef("--%s %q: %w", flag, text, err)
			}
		}
		*to = &n
	}
	for flag, to := range map[string]**int64{"cpu-quota": &cpu.Quota, "cpu-idle": &cpu.Idle, "cpu-rt-runtime": &cpu.RealtimeRuntime} {
		if c.IsSet(flag) {
			n := c.Int64(flag)
			*to = &n
		}
	}
	for flag, to := range map[string]**uint64{
		"cpu-share": &cpu.Shares, "cpu-period": &cpu.Period, "cpu-burst": &cpu.Burst, "cpu-rt-period": &cpu.RealtimePeriod,
	} {
		if c.IsSet(flag) {
			n := c.Uint64(flag)
			*to = &n
		}
	}
	r.Memory, r.CPU = memory, cpu
	if c.IsSet("pids-limit") {
		n := c.Int64("pids-limit")
		r.Pids = &specs.LinuxPids{Limit: &n}
	}
	if c.IsSet("blkio-weight") {
		weight := c.Uint("blkio-weight")
		if weight > 1000 {
			return nil, applet.Usagef("--blkio-weight %d: want 1000 at most", weight)
		}
		n := uint16(weight)
		r.BlockIO = &specs.LinuxBlockIO{Weight: &n}
	}
	return r, nil
}
