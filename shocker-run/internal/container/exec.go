package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/spawn"
)

// namespaceKind is one kind of namespaces, with its name in /proc/PID/ns.
type namespaceKind struct {
	flag int
	name string
}

// allKinds are those that an exec joins.
var allKinds = []namespaceKind{
	{unix.CLONE_NEWUSER, "user"},
	{unix.CLONE_NEWNS, "mnt"},
	{unix.CLONE_NEWPID, "pid"},
	{unix.CLONE_NEWNET, "net"},
	{unix.CLONE_NEWIPC, "ipc"},
	{unix.CLONE_NEWUTS, "uts"},
	{unix.CLONE_NEWCGROUP, "cgroup"},
	{unix.CLONE_NEWTIME, "time"},
}

// Exec starts another process in a running container:
//
//	parent (P)                     C1                          C2
//	compare namespaces ─ clone ─▶  setns(pidfd, all)
//	                               clone(PARENT) ──────────▶
//	                 ◀──────────────────────────────────────  "joined"
//	cgroups, affinity, limits ─────────────────────────────▶
//	                                                          session, terminal, stdio,
//	                                                          user, capabilities
//	                 ◀──────────────────────────────────────  "created"
//	scheduling
//	Start            ──────────────────────────────────────▶  execve
//
// target is the container's first process, by pid and pidfd. What Exec
// returns is used as a Container, but for its hooks.
func Exec(ctx context.Context, spec *specs.Spec, process *specs.Process, pid int, target *os.File, o Options) (_ *Container, retErr error) {
	defer func() { retErr = Plainly(retErr) }()
	if err := checkProcess(process); err != nil {
		return nil, err
	}
	other := *spec
	other.Process, other.Hooks = process, nil
	if other.Linux == nil {
		return nil, fmt.Errorf("%w: it has no linux", ErrInvalid)
	}
	c := &Container{spec: &other, o: o, setup: &setup{}, first: pid}
	if err := c.cloneExec(pid, target); err != nil {
		return nil, err
	}
	defer func() {
		if retErr != nil {
			retErr = errors.Join(retErr, c.proc.Kill())
			c.proc.Close()
			if c.Console != nil {
				c.Console.Close()
			}
		}
	}()
	if err := c.proc.Notified(ctx); err != nil {
		return nil, fmt.Errorf("join the container: %w", err)
	}
	if err := c.attachExec(pid, process.ExecCPUAffinity); err != nil {
		return nil, err
	}
	if o.OwnStdio != nil {
		uid, gid, err := c.setup.maps.host(process.User.UID, process.User.GID)
		if err == nil {
			err = o.OwnStdio(uid, gid)
		}
		if err != nil {
			return nil, err
		}
	}
	return c, c.created(ctx)
}

// EndedUnder says whether an exec failed because the container ended meanwhile.
// Whatever step found out first: a dead pid namespace is ENOMEM to clone(2), its
// process ESRCH to setns(2). It looks for a tenth of a second, and for longer
// where the error calls for it.
func EndedUnder(err error, pidfd *os.File) bool {
	switch {
	case err == nil, errors.Is(err, ErrNotFound), errors.Is(err, ErrNotExecutable):
		return false
	case errors.Is(err, ErrGone):
		return true
	}
	var patience time.Duration
	if errors.Is(err, spawn.ErrDied) || errors.Is(err, unix.ESRCH) {
		patience = time.Second // the others of a container end before its first process
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return spawn.WaitEnd(ctx, pidfd) == nil
}

// attachExec puts the process into the container's cgroups, and lets it run on
// the CPUs that are asked for before and after that.
func (c *Container) attachExec(init int, affinity *specs.CPUAffinity) error {
	initial, final, err := parseAffinity(affinity)
	if err != nil {
		return err
	}
	pid := c.proc.Pid()
	if len(initial) > 0 {
		if err := setAffinity(pid, initial); err != nil {
			return err
		}
	}
	if err := c.joinGroup(pid, init); err != nil {
		return err
	}
	switch {
	case len(final) == 0 && len(initial) > 0:
		return nil
	case len(final) == 0:
		final = allCPUs()
	}
	return setAffinity(pid, final)
}

// cloneExec writes the steps of the process and starts it.
func (c *Container) cloneExec(pid int, target *os.File) (err error) {
	s, p := c.setup, c.spec.Process
	if err := checkLabels(c.spec.Linux, p); err != nil {
		return err
	}
	joins, err := otherNamespaces(pid)
	if err != nil {
		return err
	}
	if err := c.capabilities(joins&unix.CLONE_NEWUSER != 0); err != nil {
		return err
	}
	if err := c.compileSeccomp(); err != nil {
		return err
	}
	if joins&unix.CLONE_NEWUSER != 0 { // by the pid, which enter sees to
		if s.maps.uids, s.maps.gids, err = spawn.MappingsOf(pid); err != nil {
			return err
		}
	}
	b, err := c.newTable()
	if err != nil {
		return err
	}
	defer b.close()
	t := b.Table
	if err := b.enter(target, pid, joins, true); err != nil {
		t.Close()
		return err
	}
	if joins&unix.CLONE_NEWUSER != 0 {
		b.becomeRoot()
	}
	if err := c.session(b); err != nil {
		t.Close()
		return err
	}
	if p.Terminal {
		how := spawn.Struct(t, &unix.OpenHow{
			Flags: unix.O_RDWR | unix.O_NOCTTY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS,
		})
		c.master = b.Call("open a terminal", unix.SYS_OPENAT2, unix.AT_FDCWD, "/dev/pts/ptmx", how, unix.SizeofOpenHow)
		c.handOver(b, b.peer(c.master, p))
	} else {
		b.Descriptors(0, c.o.Stdio[0], c.o.Stdio[1], c.o.Stdio[2])
	}
	if err := c.finish(b); err != nil {
		t.Close()
		return err
	}
	// Somebody may lie in wait in there: for our program, which root that is
	// the host's could overwrite (CVE-2019-5736), or for our memory.
	if c.proc, err = t.Start(spawn.Options{Shed: true}); err != nil {
		t.Close()
	}
	return err
}

// otherNamespaces are those in which the process is and we are not: a user
// namespace cannot be joined twice.
func otherNamespaces(pid int) (flags int, _ error) {
	for _, kind := range allKinds {
		theirs, err := os.Stat(filepath.Join("/proc", fmt.Sprint(pid), "ns", kind.name))
		if errors.Is(err, os.ErrNotExist) && exists("/proc/thread-self/ns/"+kind.name) {
			return 0, ErrGone
		}
		if errors.Is(err, os.ErrNotExist) {
			continue // this kernel has no such kind
		}
		if err != nil {
			return 0, err
		}
		ours, err := os.Stat("/proc/thread-self/ns/" + kind.name)
		if err != nil {
			return 0, err
		}
		if !os.SameFile(ours, theirs) {
			flags |= kind.flag
		}
	}
	return flags, nil
}
