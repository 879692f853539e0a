// Package container starts a process in a container as an OCI config
// describes it. It knows no flags and no store: shocker run, shocker-oci and
// exec share it.
//
// The container's process never runs Go: it is cloned by lib/spawn and makes
// the system calls that the parent has written down for it.
//
//	parent (P)                                  C1                       C2, the container's pid 1
//	parse the config, open namespaces,
//	copy bind mounts, make /dev  ── clone ──▶   join net, ipc ...
//	                                            (a net of the host: lo, sysctls)
//	                                            join user
//	                                            clone(PARENT, NEWPID) ─▶ unshare mnt, uts, net
//	                             ◀──────────────────────────────────────  "namespaces made"
//	write id maps, join cgroups,
//	id-map the root, raise limits,
//	move interfaces    ───────────────────────────────────────────────▶
//	                                                                     unshare cgroup; / is slave
//	                                                                     attach the root, at its path
//	                                                                     become root of the user namespace
//	                                                                     unshare ipc; hostname, mounts
//	                             ◀──────────────────────────────────────  "mounted", if there are hooks
//	hooks prestart, createRuntime,
//	createContainer (inside) ──────────────────────────────────────────▶
//	                                                                     sysctls, lo; masked, read-only paths
//	                                                                     pivot_root, drop the host's tree
//	                                                                     new session, stdio
//	                             ◀── with a terminal: "opened" ─────────
//	take its master ───────────────────────────────────────────────────▶
//	                                                                     close descriptors, working directory,
//	                                                                     user, capabilities, no_new_privs, limits
//	                             ◀── with a seccomp agent: see load ────
//	tell the agent ────────────────────────────────────────────────────▶
//	                             ◀──────────────────────────────────────  "created"
//	oom_score_adj, scheduling, HOME;
//	state is "created"; from here another process may go on (lib/spawn, held.go)
//	hooks startContainer (inside)
//	Start ─────────────────────────────────────────────────────────────▶ seccomp filter
//	                             ◀── end of file, or the step ──────────  execve: the program is pid 1
//	hooks poststart; state is "running"
//
// Without namespaces to join, and without our program to get rid of before a user
// namespace is made (holdProgram), there is no C1: the first clone is C2. The order
// has reasons: a cgroup namespace shows what was joined before it; the root
// lies in a directory that only the host's root passes; a proc of another
// user namespace's pid namespace cannot be mounted; /dev/mqueue would belong
// to nobody if ipc were unshared before setresuid.
package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/cgroup/group"
	"shocker.sh/lib/spawn"
	"shocker.sh/shocker-run/internal/seccomp"
)

// Options are what a config does not say.
type Options struct {
	ID     string
	Bundle string // directory that relative paths of the config count from
	// Group is the cgroup that the container joins; nil: its creator's.
	Group *group.Group
	Stdio [3]*os.File // descriptors 0 to 2, unless the process has a terminal
	// HoldIn is a directory where the container waits for a start by another
	// process (Reopen), and outlives ours; "" is one by our own.
	HoldIn string
	// OwnStdio gives stdio to the container's user, once its ids are known.
	OwnStdio func(uid, gid int) error
	// MapRoot id-maps a root that does not belong to the container's users.
	MapRoot bool
	// OpenNet lets all users bind low ports and ping in the container's
	// network namespace.
	OpenNet bool
	// IntoFrozen lets Exec join a container that is paused, Below lets it join
	// groups below the container's; see group.Joining.
	IntoFrozen bool
	Below      map[string]string
	// Files are further files that the program gets, from descriptor 3 up, none
	// where one is nil; the first ListenFDs of them are announced as sockets to listen on
	// (sd_listen_fds(3)).
	Files     []*os.File
	ListenFDs int
	// NoPivot moves the root over the host's and changes into it, where
	// pivot_root(2) cannot work: on the kernel's first root file system.
	NoPivot bool
	// NoKeyring leaves the program in its caller's session keyring.
	NoKeyring bool
	// Warn is told what of the config is left out, where the spec wants a
	// warning and no error; nil: nobody is.
	Warn func(error)
	// SkipHook says which hooks the caller does itself.
	SkipHook func(specs.Hook) bool
}

// RootPath is where the root of a container lies on the host.
func (o Options) RootPath(spec *specs.Spec) string {
	if filepath.IsAbs(spec.Root.Path) {
		return filepath.Clean(spec.Root.Path)
	}
	return filepath.Join(o.Bundle, spec.Root.Path)
}

// Container is a container's first process.
type Container struct {
	spec   *specs.Spec
	o      Options
	proc   *spawn.Process
	setup  *setup
	master *spawn.Step
	found  []*lookup   // with HoldIn
	net    *spawn.Step // see netSocket
	home   spawn.Ref   // of HOME in the environment, 0 if it is known
	// listener loads a seccomp filter that has an agent.
	listener *spawn.Step
	first    int  // pid of the container's first process, of another one
	idle     bool // it has no program that could be started
	ended    bool
	// Console is the terminal's master, with process.terminal; the caller
	// closes it.
	Console *os.File
	// Identity names the process as long as the machine is up.
	Identity spawn.Identity
}

// setup is what the parent holds until the container's process has it.
type setup struct {
	ns   *namespaces
	maps idMaps
	root *os.File // the root's directory, as the parent sees it
	tree *os.File // a copy of its mount, that becomes the container's root
	idmp bool     // tree is still to be id-mapped
	shed bool     // the process executes the stub first: see holdProgram
	m    *mounts
	mask []mask
	home *os.File // the host's mount namespace, if it is the container's
	caps *caps
	last int // capability
	// openNet is Options.OpenNet where the network namespace is not the host's.
	openNet bool

	filter *seccomp.Filter // nil: none
}

func (s *setup) close() {
	if s.ns != nil {
		s.ns.close()
	}
	if s.m != nil {
		s.m.close()
	}
	for _, m := range s.mask {
		if m.null != nil {
			m.null.Close()
		}
	}
	for _, f := range []*os.File{s.root, s.tree, s.home} {
		if f != nil {
			f.Close()
		}
	}
}

// mask is a path that is covered.
type mask struct {
	path string   // below the root, without slashes that mean nothing
	null *os.File // a mount of /dev/null for a file; nil for a directory
}

// Create makes the container; its process waits before its program. On error
// nothing is left of it.
func Create(ctx context.Context, spec *specs.Spec, o Options) (_ *Container, retErr error) {
	defer func() { retErr = Plainly(retErr) }()
	idle := spec.Process == nil && o.HoldIn != ""
	if idle { // only start needs one (OCI runtime-spec, config.md, "process")
		with := *spec
		with.Process = &specs.Process{Cwd: "/", Args: []string{"/"}}
		spec = &with
	}
	if err := check(spec); err != nil {
		return nil, err
	}
	c := &Container{spec: spec, o: o, setup: &setup{}, idle: idle}
	defer c.setup.close()
	if err := c.prepare(); err != nil {
		return nil, err
	}
	if err := c.clone(); err != nil {
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
		return nil, fmt.Errorf("make namespaces: %w", err)
	}
	if err := c.furnish(); err != nil {
		return nil, err
	}
	return c, c.created(ctx)
}

// created lets the process go on until it waits for its start, and takes over
// what it has ready.
func (c *Container) created(ctx context.Context) error {
	if err := raiseLimits(c.proc.Pid(), c.spec.Process); err != nil {
		return err
	}
	if err := c.proc.Release(); err != nil {
		return err
	}
	if err := c.createHooks(ctx); err != nil {
		return err
	}
	if c.master != nil {
		if err := c.proc.Notified(ctx); err != nil {
			return c.explain(err)
		}
		var err error
		if c.Console, err = takeConsole(c.proc, c.master); err != nil {
			return err
		}
		if err := c.proc.Release(); err != nil {
			return err
		}
	}
	if c.listener != nil {
		if err := c.tellAgent(ctx); err != nil {
			return err
		}
	}
	if err := c.proc.Notified(ctx); err != nil {
		return c.explain(err)
	}
	if err := c.lookedUp(); err != nil {
		return err
	}
	if err := c.proc.Reap(); err != nil {
		return err
	}
	if err := adjust(c.proc.Pid(), c.spec.Process); err != nil {
		return err
	}
	if err := c.setHome(c.proc.Pid()); err != nil {
		return err
	}
	pidfd, err := c.proc.Pidfd()
	if err != nil {
		return err
	}
	c.Identity, err = spawn.Identify(c.proc.Pid(), pidfd)
	return err
}

// Reopen returns a container that another process has created with the same
// spec and options. pidfd is that of its process, and closed with it.
func Reopen(spec *specs.Spec, o Options, identity spawn.Identity, pidfd *os.File) (*Container, error) {
	proc, err := spawn.Attach(o.HoldIn, pidfd)
	if err != nil {
		return nil, err
	}
	return &Container{spec: spec, o: o, proc: proc, Identity: identity}, nil
}

// prepare does what needs no process yet.
func (c *Container) prepare() (err error) {
	s, linux := c.setup, c.spec.Linux
	if err := checkLabels(linux, c.spec.Process); err != nil {
		return err
	}
	if s.ns, err = openNamespaces(linux.Namespaces); err != nil {
		return err
	}
	if !s.ns.own(unix.CLONE_NEWNS) {
		if s.home, err = os.Open("/proc/self/ns/mnt"); err != nil {
			return err
		}
	}
	if s.ns.own(unix.CLONE_NEWUSER) {
		s.maps = idMaps{linux.UIDMappings, linux.GIDMappings}
		if len(s.maps.uids) == 0 || len(s.maps.gids) == 0 {
			// It is joined, and has some.
			if s.maps.uids, s.maps.gids, err = spawn.Mappings(s.ns.joins(unix.CLONE_NEWUSER)); err != nil {
				return err
			}
		}
	}
	if err := c.capabilities(s.ns.own(unix.CLONE_NEWUSER)); err != nil {
		return err
	}
	if err := c.compileSeccomp(); err != nil {
		return err
	}
	for key := range linux.Sysctl {
		if err := checkSysctl(key, s.ns); err != nil {
			return err
		}
	}
	apart, err := s.ns.apart(unix.CLONE_NEWNET)
	if err != nil {
		return err
	}
	s.openNet = c.o.OpenNet && apart
	if len(linux.NetDevices) > 0 && !apart {
		return fmt.Errorf("%w: netDevices without a network namespace of its own to move them to", ErrInvalid)
	}
	if err := c.openRoot(); err != nil {
		return err
	}
	foreign, err := s.ns.foreign(unix.CLONE_NEWNET)
	if err != nil {
		return err
	}
	s.m = &mounts{
		root: s.root, path: c.o.RootPath(c.spec), bundle: c.o.Bundle, maps: s.maps, ns: s.ns, group: c.o.Group,
		foreign: foreign, onDisk: s.idmp, terminal: c.spec.Process.Terminal, warn: c.warn, label: linux.MountLabel,
	}
	if err := s.m.plan(c.spec.Mounts, linux.Devices); err != nil {
		return err
	}
	return c.planMasks()
}

// openRoot copies the mount of the root. One that does not belong to the
// container's users is to be id-mapped: on disk, ids count from 0.
func (c *Container) openRoot() (err error) {
	s, path := c.setup, c.o.RootPath(c.spec)
	if s.root, err = os.OpenFile(path, unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("root of the container: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(s.root.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	s.idmp = c.o.MapRoot && !s.maps.holds(st.Uid)
	if s.tree, err = copyTree(path, true); err != nil {
		return err
	}
	// It gets what the host mounts below it, and gives nothing: pivot_root wants
	// a root that is not shared.
	return setAttr(s.tree, true, &unix.MountAttr{Propagation: unix.MS_SLAVE})
}

// planMasks finds out what is masked, and copies the mount of /dev/null once
// for each file.
func (c *Container) planMasks() error {
	s := c.setup
	if n := len(c.spec.Linux.MaskedPaths) + len(c.spec.Linux.ReadonlyPaths); n > maxMounts {
		return fmt.Errorf("%w: %d masked and read-only paths; there can be %d", ErrInvalid, n, maxMounts)
	}
	seen := make(map[string]bool)
	for _, path := range c.spec.Linux.MaskedPaths {
		m := mask{path: strings.Join(split(path), "/")}
		if seen[m.path] {
			continue
		}
		seen[m.path] = true
		_, isDir, err := s.m.look(path)
		if err != nil {
			return fmt.Errorf("mask %s: %w", path, err)
		}
		if !isDir {
			if m.null, err = openNull(); err != nil {
				return err
			}
		}
		s.mask = append(s.mask, m)
	}
	return nil
}

// openNull copies the mount of the host's /dev/null, read-only: else root inside
// could give the host's own file another mode or owner.
func openNull() (*os.File, error) {
	null, err := cloneTree(os.DevNull, false, unix.MOUNT_ATTR_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(null.Fd()), &st); err != nil || st.Rdev != unix.Mkdev(1, 3) {
		null.Close()
		return nil, fmt.Errorf("%s is not the null device: %w", os.DevNull, ErrInvalid) // CVE-2025-31133
	}
	return null, nil
}

// furnish does what the parent does for a process whose namespaces are there.
func (c *Container) furnish() error {
	s, pid := c.setup, c.proc.Pid()
	if s.ns.create&unix.CLONE_NEWUSER != 0 {
		if err := spawn.WriteMappings(pid, s.maps.uids, s.maps.gids); err != nil {
			return err
		}
	}
	if err := c.checkMappings(pid); err != nil {
		return err
	}
	if err := setTimeOffsets(pid, c.spec.Linux.TimeOffsets); err != nil {
		return err
	}
	if s.idmp {
		if err := c.mapRoot(pid); err != nil {
			return err
		}
	}
	if err := s.m.mapTrees(pid); err != nil {
		return err
	}
	if err := c.moveDevices(pid); err != nil {
		return err
	}
	if err := c.joinGroup(pid, 0); err != nil {
		return err
	}
	if err := setAffinity(pid, allCPUs()); err != nil {
		return err
	}
	if c.o.OwnStdio != nil {
		uid, gid, err := s.maps.host(c.spec.Process.User.UID, c.spec.Process.User.GID)
		if err == nil {
			err = c.o.OwnStdio(uid, gid)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkMappings refuses mappings of the config by which our program is no danger, if
// those of the user namespace that it names say otherwise.
func (c *Container) checkMappings(pid int) error {
	s := c.setup
	user := s.ns.joins(unix.CLONE_NEWUSER)
	if user == nil || s.shed {
		return nil
	}
	uids, gids, err := spawn.MappingsOf(pid)
	if err != nil {
		return err
	}
	held, err := idMaps{uids, gids}.holdProgram()
	if held && err == nil {
		err = fmt.Errorf("%w: the user namespace %s has other mappings than the config", ErrInvalid, user.Name())
	}
	return err
}

func (c *Container) mapRoot(pid int) error {
	user, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", pid))
	if err != nil {
		return err
	}
	return errors.Join(mapIDs(c.setup.tree, false, user), user.Close())
}

// takeConsole copies the terminal's master from the process that opened it,
// as a file that can be waited for.
func takeConsole(proc *spawn.Process, master *spawn.Step) (*os.File, error) {
	f, err := proc.File(master, "terminal")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil || fs.Type != unix.DEVPTS_SUPER_MAGIC {
		// The container may have put anything at /dev/pts/ptmx.
		return nil, fmt.Errorf("the container's ptmx is not a terminal: %w", ErrInvalid)
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), "terminal"), nil
}

// Ended returns a container whose process has ended, for its hooks poststop.
func Ended(spec *specs.Spec, o Options) *Container { return &Container{spec: spec, o: o} }
