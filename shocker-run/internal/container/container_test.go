package container

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// firstID is where the id ranges of the tests' containers begin.
const firstID = 1900000000

// busyboxRoot makes a root file system of Debian's static busybox.
func busyboxRoot(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatalf("install busybox-static: %v", err)
	}
	root := filepath.Join(t.TempDir(), "rootfs")
	for _, dir := range []string{"bin", "etc", "tmp", "root"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program, err := os.ReadFile(busybox)
	if err == nil {
		err = os.WriteFile(filepath.Join(root, "bin/busybox"), program, 0o755)
	}
	for _, name := range []string{"sh", "cat", "id", "true", "false", "ls", "stat", "head", "yes", "sleep", "tty", "stty", "mount", "hostname", "ip", "readlink", "touch", "env", "pwd", "kill", "wc", "test", "grep", "echo", "nc", "mkdir", "chown"} {
		if err == nil {
			err = os.Symlink("busybox", filepath.Join(root, "bin", name))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	// The ways to it are passed by the container's root.
	for dir := root; dir != "/"; dir = filepath.Dir(dir) {
		if st, err := os.Stat(dir); err == nil && st.Mode()&0o001 == 0 {
			if err := os.Chmod(dir, st.Mode()|0o011); err != nil {
				t.Fatal(err)
			}
		}
	}
	return root
}

// config is what shocker-spec makes of an image, without networks.
func config(root string, args ...string) *specs.Spec {
	caps := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT"}
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: firstID, Size: 65536}}
	return &specs.Spec{
		Version:  "1.0.2",
		Hostname: "box",
		Root:     &specs.Root{Path: root},
		Process: &specs.Process{
			Args: args, Cwd: "/", Env: []string{"PATH=/bin", "HOME=/root"}, NoNewPrivileges: true,
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		},
		Linux: &specs.Linux{
			UIDMappings: ids, GIDMappings: ids,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.UserNamespace},
				{Type: specs.PIDNamespace},
				{Type: specs.NetworkNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.MountNamespace},
			},
			MaskedPaths:   []string{"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/nothere", "/sys/firmware"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
}

type outcome struct {
	status      int
	out, errOut string
}

// run runs a container to its end.
func run(t *testing.T, spec *specs.Spec, change func(*Options)) (outcome, error) {
	t.Helper()
	o := Options{ID: "test", Bundle: t.TempDir(), MapRoot: true, OpenNet: true}
	in, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	o.Stdio[0] = in
	var readers [3]*os.File
	for i := 1; i < 3; i++ {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		defer w.Close()
		readers[i], o.Stdio[i] = r, w
	}
	if change != nil {
		change(&o)
	}
	ctx := context.Background()
	c, err := Create(ctx, spec, o)
	if err != nil {
		return outcome{}, err
	}
	defer c.Close()
	var bufs [3]bytes.Buffer
	done := make(chan struct{}, 2)
	for i := 1; i < 3; i++ {
		o.Stdio[i].Close()
		go func() {
			io.Copy(&bufs[i], readers[i])
			done <- struct{}{}
		}()
	}
	if err := c.Start(ctx); err != nil {
		return outcome{}, err
	}
	status, err := c.Wait()
	<-done
	<-done
	return outcome{status, bufs[1].String(), bufs[2].String()}, err
}

func sh(t *testing.T, spec *specs.Spec, script string) string {
	t.Helper()
	spec.Process.Args = []string{"sh", "-c", script}
	r, err := run(t, spec, nil)
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	return strings.TrimSpace(r.out + r.errOut)
}

func TestExitStatus(t *testing.T) {
	root := busyboxRoot(t)
	for _, test := range []struct {
		args []string
		want int
	}{
		{[]string{"true"}, 0},
		{[]string{"false"}, 1},
		{[]string{"sh", "-c", "exit 42"}, 42},
		{[]string{"sh", "-c", "kill -9 $$; true"}, 0}, // init does not hear itself
	} {
		r, err := run(t, config(root, test.args...), nil)
		if err != nil || r.status != test.want {
			t.Errorf("%q: status %d, %v, %s; want %d", test.args, r.status, err, r.errOut, test.want)
		}
	}
}

// What the program sees, once for a new user namespace and once for none.
func TestInside(t *testing.T) {
	root := busyboxRoot(t)
	for _, userns := range []bool{true, false} {
		spec := func() *specs.Spec {
			s := config(root)
			if !userns {
				s.Linux.UIDMappings, s.Linux.GIDMappings = nil, nil
				s.Linux.Namespaces = s.Linux.Namespaces[1:]
			}
			return s
		}
		for _, test := range []struct{ script, want string }{
			{"hostname", "box"},
			{"id -u; id -g", "0\n0"},
			{"readlink /proc/self/fd/0; ls /proc/self/fd | wc -l", "/dev/null\n4"}, // and ls's own
			{"echo $$", "1"},
			{"pwd", "/"},
			{"stat -c '%a %u %g %t,%T' /dev/null /dev/tty", "666 0 0 1,3\n666 0 0 5,0"},
			{"echo x > /dev/null && head -c 2 /dev/zero | wc -c", "2"},
			{"readlink /dev/fd; readlink /dev/ptmx", "/proc/self/fd\npts/ptmx"},
			{"stat -c '%a %u' /dev/shm /dev/mqueue /dev/pts", "1777 0\n1777 0\n755 0"},
			{"cat /proc/keys /proc/timer_list; ls /sys/firmware", ""},
			{"echo 1 > /proc/sys/kernel/domainname", "sh: can't create /proc/sys/kernel/domainname: Read-only file system"},
			{"mkdir /sys/x", "mkdir: can't create directory '/sys/x': Read-only file system"},
			{"cat /proc/sys/net/ipv4/ip_unprivileged_port_start", "0"},
			{"cat /sys/class/net/lo/operstate /sys/class/net/lo/flags", "unknown\n0x9"},
			{"ls /sys/class/net", "lo"},
			{"grep -E 'NoNewPrivs|CapBnd|CapEff|CapAmb' /proc/self/status", "CapEff:\t00000000000404eb\nCapBnd:\t00000000000404eb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1"},
			{"touch /tmp/f && chown 33:33 /tmp/f && stat -c %u:%g /tmp/f", "33:33"},
			{"grep -c . /proc/self/mountinfo | { read n; test $n -lt 40 && echo few; }", "few"},
		} {
			if got := sh(t, spec(), test.script); got != test.want {
				t.Errorf("userns %v: %s\n got %q\nwant %q", userns, test.script, got, test.want)
			}
		}
	}
}

func TestNotFound(t *testing.T) {
	root := busyboxRoot(t)
	write := func(name, text string, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("bin/plain", "hello", 0o644)
	write("bin/garbage", "\x00\x01", 0o755)
	write("bin/lost", "#!/no/such/interpreter\n", 0o755)
	for _, test := range []struct {
		program string
		want    error
	}{
		{"", ErrNotFound},
		{"nosuch", ErrNotFound},
		{"/nosuch", ErrNotFound},
		{"lost", ErrNotFound},
		{"/bin/lost", ErrNotFound},
		{"plain", ErrNotExecutable},
		{"/etc", ErrNotExecutable},
		{"/bin/garbage", ErrNotExecutable},
	} {
		_, err := run(t, config(root, test.program), nil)
		if !errors.Is(err, test.want) {
			t.Errorf("%s: %v; want %v", test.program, err, test.want)
		}
	}
}
