package container

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/spawn"
)

// defaultPath is where a program is looked for if its environment does not
// say.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// becomeRoot makes the process root of its user namespace.
func (b *builder) becomeRoot() {
	b.Call("drop groups", unix.SYS_SETGROUPS, 0, 0)
	b.Call("become group 0 of the user namespace", unix.SYS_SETRESGID, 0, 0, 0)
	b.Call("become root of the user namespace", unix.SYS_SETRESUID, 0, 0, 0)
}

// session makes the process leave its caller's session, and the keys that are on
// the session's keyring.
func (c *Container) session(b *builder) error {
	b.Call("make a session", unix.SYS_SETSID)
	if c.o.NoKeyring {
		return nil
	}
	if label := c.spec.Process.SelinuxLabel; label != "" {
		if err := b.label("SELinux label of keys "+label, selinuxKeyCreate, label); err != nil {
			return err
		}
	}
	b.Call("make a keyring", unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, "_ses."+c.o.ID).Ignore(unix.ENOSYS)
	return nil
}

// newTable makes the table of the process, with room for the descriptors that
// its program gets.
func (c *Container) newTable() (_ *builder, err error) {
	var t *spawn.Table
	if c.o.HoldIn != "" {
		t, err = spawn.NewTableIn(c.o.HoldIn)
	} else {
		t, err = spawn.NewTable()
	}
	if err != nil {
		return nil, err
	}
	if err := t.Reserve(3 + len(c.o.Files)); err != nil {
		t.Close()
		return nil, err
	}
	return &builder{Table: t}, nil
}

// descriptors leaves the program its stdio and what the caller gives it.
func (c *Container) descriptors(b *builder) {
	var files []any
	for _, f := range c.o.Files {
		if f == nil {
			files = append(files, nil)
			continue
		}
		files = append(files, f)
	}
	b.Descriptors(3, files...)
	b.CloseFrom(3 + len(c.o.Files))
}

// terminal opens a new terminal on the container's own devpts, as the
// controlling one of a new session, and returns its two sides.
func (b *builder) terminal(pts any, p *specs.Process) (master, slave *spawn.Step) {
	master = b.Call("open a terminal", unix.SYS_OPENAT, pts, "ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	return master, b.peer(master, p)
}

// peer opens the slave of a terminal, gives it to its user and to its size, and
// makes it the controlling one.
func (b *builder) peer(master *spawn.Step, p *specs.Process) *spawn.Step {
	b.Call("unlock the terminal", unix.SYS_IOCTL, master, unix.TIOCSPTLCK, []byte{0, 0, 0, 0})
	slave := b.Call("open the terminal's slave", unix.SYS_IOCTL, master, unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	b.Call("give the terminal to its user", unix.SYS_FCHOWN, slave, p.User.UID, ^uint64(0))
	if size := p.ConsoleSize; size != nil {
		b.Call("set size of the terminal", unix.SYS_IOCTL, slave, unix.TIOCSWINSZ,
			spawn.Struct(b.Table, &unix.Winsize{Row: uint16(size.Height), Col: uint16(size.Width)}))
	}
	b.Call("make the terminal the controlling one", unix.SYS_IOCTL, slave, unix.TIOCSCTTY, 0)
	return slave
}

// openCwd begins the name of the step that finds the working directory.
const openCwd = "open working directory "

// changeDir enters the working directory, which must not lead through a
// descriptor of ours (CVE-2024-21626).
func (b *builder) changeDir(cwd string) {
	how := spawn.Struct(b.Table, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_MAGICLINKS,
	})
	fd := b.Call(openCwd+cwd, unix.SYS_OPENAT2, unix.AT_FDCWD, cwd, how, unix.SizeofOpenHow)
	b.Call("enter working directory "+cwd, unix.SYS_FCHDIR, fd)
}

// identity makes the process what its config says it is: user, groups,
// capabilities, no_new_privs.
func (b *builder) identity(p *specs.Process, c *caps, last int) {
	for n := range last + 1 {
		if c.bounding&(1<<n) == 0 {
			b.Call("drop CAP_"+capName(n), unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, n, 0, 0, 0)
		}
	}
	b.Call("keep capabilities", unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0, 0, 0)
	umask := uint32(0o022)
	if p.User.Umask != nil {
		umask = *p.User.Umask
	}
	b.Call("set umask", unix.SYS_UMASK, umask)
	groups := make([]byte, 0, 4*len(p.User.AdditionalGids))
	for _, g := range p.User.AdditionalGids {
		groups = binary.NativeEndian.AppendUint32(groups, g)
	}
	b.Call("set groups", unix.SYS_SETGROUPS, len(p.User.AdditionalGids), groups)
	uid, gid := p.User.UID, p.User.GID
	b.Call(fmt.Sprintf("become group %d", gid), unix.SYS_SETRESGID, gid, gid, gid)
	b.Call(fmt.Sprintf("become user %d", uid), unix.SYS_SETRESUID, uid, uid, uid)

	type header struct {
		version uint32
		pid     int32
	}
	type data [2]struct{ effective, permitted, inheritable uint32 }
	d := data{
		{uint32(c.effective), uint32(c.permitted), uint32(c.inheritable)},
		{uint32(c.effective >> 32), uint32(c.permitted >> 32), uint32(c.inheritable >> 32)},
	}
	b.Call("set capabilities", unix.SYS_CAPSET,
		spawn.Struct(b.Table, &header{version: unix.LINUX_CAPABILITY_VERSION_3}), spawn.Struct(b.Table, &d))
	b.Call("clear ambient capabilities", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	for n := range last + 1 {
		if c.ambient&(1<<n) != 0 {
			b.Call("raise ambient CAP_"+capName(n), unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, n, 0, 0)
		}
	}
	if p.NoNewPrivileges {
		b.Call("set no_new_privs", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	}
}

func capName(n int) string {
	if n < len(capNames) {
		return capNames[n]
	}
	return fmt.Sprint(n)
}

// candidates are the paths at which a program is looked for.
func candidates(program string, env []string) []string {
	if strings.Contains(program, "/") {
		return []string{program}
	}
	path := defaultPath
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v // the last one counts, as for the program itself
		}
	}
	var all []string
	for dir := range strings.SplitSeq(path, ":") {
		if dir == "" {
			dir = "."
		}
		all = append(all, strings.TrimSuffix(dir, "/")+"/"+program)
	}
	return all
}

// exec ends the table: the program, or what is in the way at each of its
// candidates.
func (c *Container) exec(b *builder) {
	p := c.spec.Process
	args := b.Strings(p.Args)
	env, home := b.environment(append(p.Env[:len(p.Env):len(p.Env)], listenFDs(c.o.ListenFDs)...))
	c.home = home
	all := candidates(p.Args[0], p.Env)
	for i, path := range all {
		s := b.Call("execute "+path, unix.SYS_EXECVE, path, args, env)
		if i < len(all)-1 {
			s.IgnoreAny()
		}
	}
}

// lookup is what the process finds at one path of its program.
type lookup struct {
	access, look *spawn.Step
	stat         *unix.Stat_t
}

// lookUp looks for the program as its user, before the start: an engine wants
// to hear from create that there is none.
func (b *builder) lookUp(p *specs.Process) (found []*lookup) {
	const executable = 1 // X_OK
	for _, path := range candidates(p.Args[0], p.Env) {
		stat, at := spawn.Out[unix.Stat_t](b.Table)
		l := &lookup{stat: stat}
		l.access = b.Call("look for "+path, unix.SYS_FACCESSAT2, unix.AT_FDCWD, path, executable, unix.AT_EACCESS).IgnoreAny()
		l.look = b.Call("look at "+path, unix.SYS_NEWFSTATAT, unix.AT_FDCWD, path, at, 0).IgnoreAny()
		found = append(found, l)
	}
	return found
}

// verdict is what a step of lookUp says of its path. A seccomp filter that is
// loaded already may not know the call, faccessat2 for one, and answer EPERM or
// ENOSYS: then execve has to find out.
func verdict(s *spawn.Step) unix.Errno {
	errno := unix.Errno(max(-s.Result(), 0))
	if errno == unix.EPERM || errno == unix.ENOSYS {
		return 0
	}
	return errno
}

// lookedUp says what lookUp has found.
func (c *Container) lookedUp() error {
	var tried []unix.Errno
	for _, l := range c.found {
		errno := max(verdict(l.access), verdict(l.look))
		if errno == 0 && l.look.Result() == 0 && l.stat.Mode&unix.S_IFMT != unix.S_IFREG {
			errno = unix.EACCES
		}
		if errno == 0 {
			return nil
		}
		tried = append(tried, errno)
	}
	if tried == nil {
		return nil
	}
	return notExecuted(c.spec.Process.Args[0], tried)
}
