package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/sys"
)

// started runs a container that waits for the test's end, and a function to
// run a further process in it.
func started(t *testing.T, spec *specs.Spec, change func(*Options)) (*Container, func(*specs.Process) (string, error)) {
	t.Helper()
	spec.Process.Args = []string{"sh", "-c", "echo; while true; do sleep 1000; done"}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	o := Options{ID: "test", Bundle: t.TempDir(), MapRoot: true, OpenNet: true, Stdio: [3]*os.File{null, w, null}}
	if change != nil {
		change(&o)
	}
	c, err := Create(context.Background(), spec, o)
	if err == nil {
		err = c.Start(context.Background())
	}
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Kill(); err != nil {
			t.Error(err)
		}
		c.Close()
	})
	if _, err := r.Read(make([]byte, 1)); err != nil { // it says when it runs
		t.Fatal(err)
	}
	return c, func(p *specs.Process) (string, error) { return execute(c, p, o) }
}

func execute(c *Container, p *specs.Process, o Options) (string, error) {
	pidfd, err := c.proc.Pidfd()
	if err != nil {
		return "", err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer r.Close()
	defer w.Close()
	o.Stdio[1], o.Stdio[2] = w, w
	if o.Stdio[0], err = os.Open(os.DevNull); err != nil {
		return "", err
	}
	defer o.Stdio[0].Close()
	e, err := Exec(context.Background(), c.spec, p, c.Pid(), pidfd, o)
	if err != nil {
		return "", err
	}
	defer e.Close()
	if err := e.Start(context.Background()); err != nil {
		return "", err
	}
	w.Close()
	out, err := io.ReadAll(r)
	if err != nil {
		return "", err
	}
	_, err = e.Wait()
	return strings.TrimSpace(string(out)), err
}

// inNamespaces runs a command of the host in new namespaces until the test
// ends, and returns its pid.
func inNamespaces(t *testing.T, flags uintptr, command string) int {
	t.Helper()
	cmd := exec.Command("sh", "-c", command+"; echo; exec sleep 1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: flags}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

func inode(t *testing.T, path string) string {
	t.Helper()
	link, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	return link
}

// Each kind of namespace: made, joined by its path, and the host's.
func TestNamespaceKinds(t *testing.T) {
	root := busyboxRoot(t)
	for _, kind := range allKinds {
		var name specs.LinuxNamespaceType
		for n, flag := range namespaceFlags {
			if flag == kind.flag {
				name = n
			}
		}
		if name == specs.UserNamespace {
			continue // TestJoin
		}
		base := func() *specs.Spec {
			spec := config(root)
			withoutUser(spec)
			spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace}, specs.LinuxNamespace{Type: specs.TimeNamespace})
			if kind.flag == unix.CLONE_NEWUTS {
				spec.Hostname = ""
			}
			return spec
		}
		own := inode(t, "/proc/self/ns/"+kind.name)
		script := "readlink /proc/self/ns/" + kind.name

		if got := sh(t, base(), script); got == own || !strings.HasPrefix(got, kind.name+":[") {
			t.Errorf("%s, made: %s; ours is %s", name, got, own)
		}

		spec := base()
		spec.Linux.Namespaces = slices.DeleteFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == name })
		if got := sh(t, spec, script); got != own {
			t.Errorf("%s, the host's: %s; want %s", name, got, own)
		}

		pid := inNamespaces(t, uintptr(kind.flag)&^unix.CLONE_NEWPID&^unix.CLONE_NEWTIME, "true")
		path := fmt.Sprintf("/proc/%d/ns/%s", pid, kind.name)
		switch kind.flag {
		case unix.CLONE_NEWPID, unix.CLONE_NEWTIME:
			other := config(root)
			withoutUser(other)
			other.Linux.Namespaces = append(other.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
			c, _ := started(t, other, nil)
			path = fmt.Sprintf("/proc/%d/ns/%s", c.Pid(), kind.name)
		}
		spec = base()
		setPath(spec, name, path)
		if got, want := sh(t, spec, script), inode(t, path); got != want || got == own {
			t.Errorf("%s, joined: %s; want %s, and not our own %s", name, got, want, own)
		}
	}
}

func TestTimeOffsets(t *testing.T) {
	root := busyboxRoot(t)
	for _, userns := range []bool{true, false} {
		spec := config(root)
		if !userns {
			withoutUser(spec)
		}
		spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
		spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 86400, Nanosecs: 5}, "boottime": {Secs: 1e6}}
		const script = "busybox tr -s ' ' < /proc/self/timens_offsets; read up rest < /proc/uptime; test ${up%.*} -gt 1000000 && echo set off"
		want := "monotonic 86400 5\nboottime 1000000 0\nset off"
		if got := sh(t, spec, script); got != want {
			t.Errorf("userns %v: %q; want %q", userns, got, want)
		}
		c, exec := started(t, spec, nil)
		p := *spec.Process
		p.Args = []string{"sh", "-c", script}
		if got, err := exec(&p); err != nil || got != want {
			t.Errorf("userns %v, exec: %q, %v; want %q", userns, got, err, want)
		}
		_ = c
	}
}

// A user namespace that is joined brings its mappings along.
func TestJoinWithoutMappings(t *testing.T) {
	root := busyboxRoot(t)
	spec := config(root)
	paths := pinned(t, spec.Linux.UIDMappings, unix.CLONE_NEWUSER, unix.CLONE_NEWNET)
	setPath(spec, specs.UserNamespace, paths[0])
	setPath(spec, specs.NetworkNamespace, paths[1])
	spec.Linux.UIDMappings, spec.Linux.GIDMappings = nil, nil
	got := sh(t, spec, "busybox tr -s ' ' < /proc/self/uid_map; stat -c %u /dev/null; id -u")
	if want := fmt.Sprintf("0 %d 65536\n0\n0", firstID); strings.TrimSpace(got) != want {
		t.Errorf("joined: %q; want %q", got, want)
	}
}

// With the host's pid namespace the container's root can mount no proc: the
// host's serves, for sysctls too.
func TestHostPids(t *testing.T) {
	root := busyboxRoot(t)
	for _, proc := range []bool{true, false} {
		spec := config(root)
		spec.Linux.Namespaces = slices.DeleteFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace })
		spec.Linux.Sysctl = map[string]string{"kernel.msgmax": "4242"}
		script, want := "cat /proc/sys/kernel/msgmax; test $$ -gt 1 && echo host", "4242\nhost"
		if !proc {
			spec.Mounts, spec.Linux.MaskedPaths, spec.Linux.ReadonlyPaths = spec.Mounts[1:], nil, nil
			script, want = "test $$ -gt 1 && echo host", "host"
		}
		if got := sh(t, spec, script); got != want {
			t.Errorf("with proc %v: %q; want %q", proc, got, want)
		}
	}
}

// A pod: a second container shares the namespaces of the first, its user
// namespace too.
func TestPod(t *testing.T) {
	root := busyboxRoot(t)
	first, _ := started(t, config(root), nil)
	spec := config(root)
	for kind, name := range map[specs.LinuxNamespaceType]string{
		specs.UserNamespace: "user", specs.PIDNamespace: "pid", specs.NetworkNamespace: "net", specs.IPCNamespace: "ipc", specs.UTSNamespace: "uts",
	} {
		setPath(spec, kind, fmt.Sprintf("/proc/%d/ns/%s", first.Pid(), name))
	}
	got := sh(t, spec, "busybox ps | grep -c 'sleep 1000$'; test $$ -gt 1 && echo second")
	if want := "1\nsecond"; got != want {
		t.Errorf("in the pod: %q; want %q", got, want)
	}
}

// Whoever can be the owner of our program in the container must not find it
// there: "#!/proc/self/exe" would execute it (CVE-2019-5736).
func TestProgramIsShed(t *testing.T) {
	root := busyboxRoot(t)
	ours, err := os.Stat("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	owner := []specs.LinuxIDMapping{{ContainerID: 0, HostID: firstID, Size: 1000}, {ContainerID: 1000, HostID: 0, Size: 1}}
	joined := pinned(t, owner, unix.CLONE_NEWUSER)[0]
	for name, change := range map[string]func(*specs.Spec){
		"no user namespace":  withoutUser,
		"root is ours":       func(s *specs.Spec) { s.Linux.UIDMappings[0].HostID = 0 },
		"another user is":    func(s *specs.Spec) { s.Linux.UIDMappings, s.Linux.GIDMappings = owner, owner },
		"the group is":       func(s *specs.Spec) { s.Linux.GIDMappings = owner },
		"a joined namespace": func(s *specs.Spec) { setPath(s, specs.UserNamespace, joined); s.Linux.UIDMappings = nil },
	} {
		spec := config(root, "sh", "-c", "echo $$; id -u")
		change(spec)
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		c, err := Create(t.Context(), spec, Options{ID: "test", Bundle: t.TempDir(), MapRoot: true, Stdio: [3]*os.File{null, null, null}})
		null.Close()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		theirs, err := os.Stat(fmt.Sprintf("/proc/%d/exe", c.Pid()))
		if err != nil || os.SameFile(ours, theirs) {
			t.Errorf("%s: the container's process is our program, %v", name, err)
		}
		if err := c.Kill(); err != nil {
			t.Error(err)
		}
		c.Close()
		if got := sh(t, spec, "echo $$; id -u; stat -c %u /dev/null"); got != "1\n0\n0" {
			t.Errorf("%s: %q", name, got)
		}
	}
	spec := config(root, "true")
	setPath(spec, specs.UserNamespace, joined)
	if _, err := run(t, spec, nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("a joined namespace with other mappings than the config's: %v; want %v", err, ErrInvalid)
	}
}

// withoutMounts takes the mount namespace out of a config.
func withoutMounts(spec *specs.Spec) {
	spec.Linux.Namespaces = slices.DeleteFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.MountNamespace })
}

// Without a mount namespace of its own a container sees its root and mounts,
// and leaves nothing behind where others would see it.
func TestNoMountNamespace(t *testing.T) {
	root := busyboxRoot(t)
	host := hostDir(t, root)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	spec := config(root)
	withoutUser(spec)
	withoutMounts(spec)
	spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/m", Source: host, Options: []string{"rbind", "runbindable"}})
	_, exec := started(t, spec, nil)
	p := *spec.Process
	const script = "ls /; cat /m/file; test -c /dev/null && test -d /proc/1 && readlink /proc/self/ns/mnt; pwd; grep -c . /proc/keys; echo 1 > /proc/sys/kernel/domainname"
	p.Args = []string{"sh", "-c", script}
	want := "bin\ndev\netc\nm\nproc\nroot\nsys\ntmp\nfrom the host\n" + inode(t, "/proc/self/ns/mnt") + "\n/\n0\nsh: can't create /proc/sys/kernel/domainname: Read-only file system"
	if got, err := exec(&p); err != nil || got != want {
		t.Errorf("exec: %q, %v; want %q", got, err, want)
	}
	if got := sh(t, spec, script); got != want {
		t.Errorf("%q; want %q", got, want)
	}
	if after, err := os.ReadFile("/proc/self/mountinfo"); err != nil || string(after) != string(mounts) {
		t.Errorf("mounts are left: %s, %v", after, err)
	}
}

// The root is moved over the host's, of which no proc stays below it.
func TestNoPivot(t *testing.T) {
	root := busyboxRoot(t)
	for _, userns := range []bool{true, false} {
		spec := config(root)
		if !userns {
			withoutUser(spec)
		}
		c, exec := started(t, spec, func(o *Options) { o.NoPivot = true })
		p := *spec.Process
		p.Args = []string{"sh", "-c", "ls -d /*; grep -c . /proc/keys; echo 1 > /proc/sys/kernel/domainname"}
		want := "/bin\n/dev\n/etc\n/proc\n/root\n/sys\n/tmp\n0\nsh: can't create /proc/sys/kernel/domainname: Read-only file system"
		if got, err := exec(&p); err != nil || got != want {
			t.Errorf("userns %v: %q, %v; want %q", userns, got, err, want)
		}
		info, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", c.Pid()))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(info)) {
			f := strings.Fields(line)
			if strings.Contains(line, " - proc ") && !strings.HasPrefix(f[4], "/proc") {
				t.Errorf("userns %v: a proc of the host is left: %s", userns, line)
			}
		}
	}
}

// TestHostByPath: a namespace that is named by its path can be the host's own, for
// which no sysctl and no name is set.
func TestHostByPath(t *testing.T) {
	root := busyboxRoot(t)
	// Ports that are not for all users stay so.
	const file = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
	before, err := sys.ReadKernel(file)
	if err != nil {
		t.Fatal(err)
	}
	spec := config(root)
	setPath(spec, specs.NetworkNamespace, "/proc/self/ns/net")
	if got := sh(t, spec, "cat "+file); got+"\n" != string(before) {
		t.Errorf("%s of the host was %q and is %q", file, before, got)
		if err := sys.WriteKernel(file, string(before)); err != nil {
			t.Error(err)
		}
	}
	for kind, test := range map[specs.LinuxNamespaceType]struct{ name, key, value string }{
		specs.NetworkNamespace: {"net", "net.ipv4.ip_default_ttl", "33"},
		specs.IPCNamespace:     {"ipc", "kernel.msgmax", "4444"},
		specs.UTSNamespace:     {"uts", "kernel.domainname", "33"},
	} {
		file := "/proc/sys/" + strings.ReplaceAll(test.key, ".", "/")
		before, err := sys.ReadKernel(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, userns := range []bool{true, false} {
			spec := config(root, "true")
			setPath(spec, kind, "/proc/self/ns/"+test.name)
			if !userns {
				spec.Linux.Namespaces, spec.Linux.UIDMappings, spec.Linux.GIDMappings = spec.Linux.Namespaces[1:], nil, nil
			}
			spec.Hostname = ""
			spec.Linux.Sysctl = map[string]string{test.key: test.value}
			if _, err := run(t, spec, nil); !errors.Is(err, ErrInvalid) {
				t.Errorf("%s of the host's own namespace, userns %v: %v; want ErrInvalid", test.key, userns, err)
			}
			after, err := sys.ReadKernel(file)
			if err != nil || string(after) != string(before) {
				t.Errorf("%s of the host was %q and is %q, %v", test.key, before, after, err)
				if err := sys.WriteKernel(file, string(before)); err != nil {
					t.Error(err)
				}
			}
		}
	}
	for file, change := range map[string]func(s *specs.Spec, name string){
		"/proc/sys/kernel/hostname":   func(s *specs.Spec, name string) { s.Hostname = name },
		"/proc/sys/kernel/domainname": func(s *specs.Spec, name string) { s.Hostname, s.Domainname = "", name },
	} {
		before, err := sys.ReadKernel(file)
		if err != nil {
			t.Fatal(err)
		}
		spec := config(root, "true")
		withoutUser(spec)
		setPath(spec, specs.UTSNamespace, "/proc/self/ns/uts")
		change(spec, strings.TrimSpace(string(before)))
		if _, err := run(t, spec, nil); err != nil {
			t.Errorf("%s as it is: %v", file, err)
		}
		change(spec, "taken")
		if _, err := run(t, spec, nil); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s of the host's own namespace: %v; want %v", file, err, ErrInvalid)
		}
		after, err := sys.ReadKernel(file)
		if err != nil || string(after) != string(before) {
			t.Errorf("%s was %q and is %q, %v", file, before, after, err)
			if err := sys.WriteKernel(file, string(before)); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestNamespacesRefused(t *testing.T) {
	for name, change := range map[string]func(*specs.Spec){
		"mappings of nothing":    func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[1:] },
		"user without mount":     func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[:5] },
		"new user, joined mount": func(s *specs.Spec) { setPath(s, specs.MountNamespace, "/proc/1/ns/mnt") },
		"relative path":          func(s *specs.Spec) { setPath(s, specs.PIDNamespace, "ns") },
		"offsets of nothing":     func(s *specs.Spec) { s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {}} },
		"unknown clock": func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"realtime": {}}
		},
		"offsets of a joined one": func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace, Path: "/proc/1/ns/time"})
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {}}
		},
	} {
		spec := config("/", "true")
		change(spec)
		if err := check(spec); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
