package container

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/spawn"
)

func isNet(sysctl string) bool { return strings.HasPrefix(sysctlPath(sysctl), "net/") }

// clone writes the steps of the container's process and starts it.
func (c *Container) clone() error {
	s := c.setup
	b, err := c.newTable()
	if err != nil {
		return err
	}
	t := b.Table
	defer b.close()
	b.root = s.tree
	const born = unix.CLONE_NEWUSER | unix.CLONE_NEWPID
	first := spawn.Options{Flags: uint64(s.ns.create & born)}
	if s.shed, err = s.maps.holdProgram(); err != nil {
		t.Close()
		return err
	}
	first.Shed = s.shed
	if len(s.ns.join) > 0 || s.shed && s.ns.create&unix.CLONE_NEWUSER != 0 {
		if err := c.join(b); err != nil {
			t.Close()
			return err
		}
		b.Clone("clone the container's process", first.Flags)
		first.Flags = 0
	}
	b.Call("make namespaces", unix.SYS_UNSHARE, unix.CLONE_NEWNS|s.ns.create&(unix.CLONE_NEWUTS|unix.CLONE_NEWNET|unix.CLONE_NEWTIME))
	if s.ns.create&unix.CLONE_NEWNET != 0 {
		c.netSocket(b)
	}
	var later *spawn.Step
	if s.ns.create&unix.CLONE_NEWTIME != 0 {
		later = b.newTime()
	}
	b.Notify("tell that the namespaces are made")
	b.Wait("wait for the parent")
	if later != nil {
		b.Call("enter the time namespace", unix.SYS_SETNS, later, unix.CLONE_NEWTIME)
	}
	if err := c.steps(b); err != nil {
		t.Close()
		return err
	}
	if c.proc, err = t.Start(first); err != nil {
		t.Close()
	}
	return err
}

// join joins namespaces: those of the host first, over which the container's
// user namespace has no power, then that one. A network namespace of the host
// gets in between what the container's root would do in its own. A mount
// namespace comes last but for that: it takes the host's proc out of sight.
func (c *Container) join(b *builder) error {
	ns := c.setup.ns
	for _, j := range ns.join {
		if j.flag != unix.CLONE_NEWUSER && j.flag != unix.CLONE_NEWNS {
			b.join(j.file, j.flag)
		}
	}
	if ns.joins(unix.CLONE_NEWNET) != nil {
		c.netSocket(b)
	}
	if c.setup.m.foreign && ns.joins(unix.CLONE_NEWNET) != nil {
		// /proc/sys/net shows the namespace of the process that looks.
		proc := b.Call("open the host's proc", unix.SYS_OPENAT, unix.AT_FDCWD, "/proc", unix.O_PATH|unix.O_CLOEXEC, 0)
		if err := c.furnishNet(b, proc); err != nil {
			return err
		}
	}
	for _, flag := range []int{unix.CLONE_NEWNS, unix.CLONE_NEWUSER} {
		if f := ns.joins(flag); f != nil {
			b.join(f, flag)
		}
	}
	return nil
}

func (b *builder) join(f *os.File, flag int) {
	b.Call("join namespace "+f.Name(), unix.SYS_SETNS, f, flag)
}

// furnishNet brings lo up and sets the sysctls of a network namespace.
func (c *Container) furnishNet(b *builder, proc any) error {
	if c.setup.openNet {
		for key, value := range defaultNetSysctls(c.setup.maps, c.spec.Linux.Sysctl) {
			b.sysctl(proc, key, value)
		}
	}
	for key, value := range c.spec.Linux.Sysctl {
		if isNet(key) {
			b.sysctl(proc, key, value)
		}
	}
	return b.loopback()
}

// steps are those of C2 after the parent has furnished it.
func (c *Container) steps(b *builder) error {
	s, linux, p := c.setup, c.spec.Linux, c.spec.Process
	if s.ns.create&unix.CLONE_NEWCGROUP != 0 {
		b.Call("make a cgroup namespace", unix.SYS_UNSHARE, unix.CLONE_NEWCGROUP)
	}
	c.enterRoot(b)
	b.Call("set umask", unix.SYS_UMASK, 0o022)
	b.becomeRoot()
	if s.ns.create&unix.CLONE_NEWIPC != 0 {
		b.Call("make an ipc namespace", unix.SYS_UNSHARE, unix.CLONE_NEWIPC)
	}
	if err := c.names(b); err != nil {
		return err
	}
	proc, pts := b.mounts(s.m)
	if c.hasCreateHooks() {
		b.Notify("tell that the mounts are made")
		b.Wait("wait for the hooks")
	}
	if err := c.tune(b, proc); err != nil {
		return err
	}
	for _, m := range s.mask {
		b.mask(m)
	}
	for _, path := range linux.ReadonlyPaths {
		b.readonly(path)
	}
	cwd, err := resolvePlace(s.root, p.Cwd, s.m.covered)
	if err != nil {
		return fmt.Errorf("working directory: %w", err)
	}
	b.makePlace(cwd, false)
	b.seal(s.m)
	if c.spec.Root.Readonly {
		b.setAttr("make the root read-only", b.root, 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	}
	if err := c.changeRoot(b); err != nil {
		return err
	}
	if err := c.session(b); err != nil {
		return err
	}
	c.connect(b, pts)
	c.leaveMounts(b)
	return c.finish(b)
}

// finish makes the process what its config says, waits for the start, and
// executes the program. What can fail fails before: whoever creates a
// container learns of it.
func (c *Container) finish(b *builder) error {
	p := c.spec.Process
	if err := b.labels(p); err != nil {
		return err
	}
	c.descriptors(b)
	b.changeDir(p.Cwd)
	if err := b.traits(c.spec.Linux); err != nil {
		return err
	}
	if c.o.HoldIn != "" {
		b.EndOnSignals()
	}
	c.load(b, loadEarly)
	b.identity(p, c.setup.caps, c.setup.last)
	if c.o.HoldIn != "" && !c.idle {
		c.found = b.lookUp(p)
	}
	b.limits(p)
	c.load(b, loadToCreate)
	b.Notify("tell that the container is created")
	b.Hold("wait for the start")
	b.Signals()
	c.load(b, loadLast)
	c.exec(b)
	return nil
}

// names sets the names of the host. A namespace that is named by its path can be the
// one that we are in, as in a pod that has the host's: it has its name already.
func (c *Container) names(b *builder) error {
	if c.spec.Hostname == "" && c.spec.Domainname == "" {
		return nil
	}
	ns := c.setup.ns
	apart, err := ns.apart(unix.CLONE_NEWUTS)
	if err != nil {
		return err
	}
	var now unix.Utsname
	if err := unix.Uname(&now); err != nil {
		return os.NewSyscallError("uname", err)
	}
	for _, n := range []struct {
		what, name string
		now        []byte
		nr         uintptr
	}{
		{"hostname", c.spec.Hostname, now.Nodename[:], unix.SYS_SETHOSTNAME},
		{"domainname", c.spec.Domainname, now.Domainname[:], unix.SYS_SETDOMAINNAME},
	} {
		switch {
		case n.name == "":
		case apart:
			b.Call("set "+n.what+" "+n.name, n.nr, n.name, len(n.name))
		case !ns.own(unix.CLONE_NEWUTS) || n.name != unix.ByteSliceToString(n.now):
			return fmt.Errorf("%w: a %s without a uts namespace of its own would rename the host", ErrInvalid, n.what)
		}
	}
	return nil
}

// tune sets the sysctls of the container's own namespaces and brings its lo
// up.
func (c *Container) tune(b *builder, proc any) error {
	ownNet := !c.setup.m.foreign && c.setup.ns.own(unix.CLONE_NEWNET)
	if proc == nil && (len(c.spec.Linux.Sysctl) > 0 || c.setup.openNet && ownNet) {
		foreign, err := c.setup.ns.foreign(unix.CLONE_NEWPID)
		if err != nil {
			return err
		}
		if foreign {
			// It could mount none. The host's shows the same to who looks.
			proc = b.Call("open the host's proc", unix.SYS_OPENAT, unix.AT_FDCWD, "/proc", unix.O_PATH|unix.O_CLOEXEC, 0)
		} else {
			proc = b.fileSystem(fileSystem{kind: "proc", source: "proc"})
		}
	}
	for key, value := range c.spec.Linux.Sysctl {
		if !isNet(key) {
			b.sysctl(proc, key, value)
		}
	}
	if !ownNet {
		return nil
	}
	return c.furnishNet(b, proc)
}

// connect gives the process its stdio.
func (c *Container) connect(b *builder, pts any) {
	p := c.spec.Process
	if !p.Terminal {
		b.Descriptors(0, c.o.Stdio[0], c.o.Stdio[1], c.o.Stdio[2])
		return
	}
	if pts == nil {
		pts = b.fileSystem(fileSystem{kind: "devpts", source: "devpts", data: []string{"newinstance", "ptmxmode=0666", "mode=0620"}})
	}
	master, slave := b.terminal(pts, p)
	c.master = master
	b.attachConsole(c.setup.m.console, slave)
	c.handOver(b, slave)
}

// handOver gives the process its terminal as stdio, and lets us take the
// master before descriptors are closed.
func (c *Container) handOver(b *builder, slave any) {
	b.Descriptors(0, slave, slave, slave)
	b.Notify("tell that the terminal is open")
	b.Wait("wait for the terminal to be taken")
}
