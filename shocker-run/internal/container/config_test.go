package container

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/spawn"
)

// pinned makes namespaces and keeps them at paths, as shocker-net does.
func pinned(t *testing.T, uids []specs.LinuxIDMapping, flags ...uint64) []string {
	t.Helper()
	files, err := spawn.Namespaces(uids, uids, flags...)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for i, f := range files {
		path := filepath.Join(t.TempDir(), fmt.Sprint(i))
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), path, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		f.Close()
		t.Cleanup(func() {
			if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
		paths = append(paths, path)
	}
	return paths
}

func setPath(spec *specs.Spec, kind specs.LinuxNamespaceType, path string) {
	for i := range spec.Linux.Namespaces {
		if spec.Linux.Namespaces[i].Type == kind {
			spec.Linux.Namespaces[i].Path = path
		}
	}
}

// The two namespaces that shocker-net makes together are the container's own.
func TestJoin(t *testing.T) {
	root := busyboxRoot(t)
	spec := config(root)
	paths := pinned(t, spec.Linux.UIDMappings, unix.CLONE_NEWUSER, unix.CLONE_NEWNET)
	setPath(spec, specs.UserNamespace, paths[0])
	setPath(spec, specs.NetworkNamespace, paths[1])
	want, err := os.Stat(paths[1])
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(paths[1], &st); err != nil {
		t.Fatal(err)
	}
	_ = want
	got := sh(t, spec, "readlink /proc/self/ns/net; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; cat /sys/class/net/lo/flags; id -u; stat -c %u /bin; echo $$; grep -c ' /sys sysfs ' /proc/mounts")
	if want := fmt.Sprintf("net:[%d]\n0\n0x9\n0\n0\n1\n1", st.Ino); got != want {
		t.Errorf("joined: %q; want %q", got, want)
	}
}

// A network namespace of the host, as `ip netns` makes it, is furnished from
// outside, and the host's /sys stands in for one of its own.
func TestForeignNet(t *testing.T) {
	root := busyboxRoot(t)
	spec := config(root)
	setPath(spec, specs.NetworkNamespace, pinned(t, nil, unix.CLONE_NEWNET)[0])
	spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_default_ttl": "33"}
	got := sh(t, spec, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ip_default_ttl; ip -o link show lo | grep -o UP | head -n 1; touch /sys/x 2>&1 | grep -o Read-only; nc -l -p 80 & sleep 0; ls /sys/kernel > /dev/null && echo sys")
	if want := "0\n33\nUP\nRead-only\nsys"; got != want {
		t.Errorf("in a foreign network namespace: %q; want %q", got, want)
	}
	// The host's own is not touched.
	spec = config(root)
	spec.Linux.Namespaces = append(spec.Linux.Namespaces[:2:2], spec.Linux.Namespaces[3:]...)
	ours, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if got := sh(t, spec, "readlink /proc/self/ns/net; ls /sys/kernel >/dev/null && echo sys"); got != ours+"\nsys" {
		t.Errorf("with the host's network: %q; want %q", got, ours+"\nsys")
	}
}

func TestProcess(t *testing.T) {
	root := busyboxRoot(t)
	spec := config(root)
	p := spec.Process
	umask, adj := uint32(0o027), 123
	p.User = specs.User{UID: 33, GID: 44, AdditionalGids: []uint32{55, 66}, Umask: &umask}
	p.Cwd = "/made/for/it"
	p.OOMScoreAdj = &adj
	p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 5 * 512, Hard: 6 * 512}}
	p.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN", "CAP_KILL"}, Permitted: []string{"CAP_KILL"}, Inheritable: []string{"CAP_KILL"}, Ambient: []string{"CAP_KILL"}}
	got := sh(t, spec, "id -u; id -g; id -G; umask; pwd; cat /proc/self/oom_score_adj; ulimit -Sc; ulimit -Hc; ulimit -Sn; grep -E 'CapBnd|CapEff' /proc/self/status")
	var own unix.Rlimit
	if out, err := exec.Command("sh", "-c", "ulimit -Sn").Output(); err != nil {
		t.Fatal(err)
	} else if _, err := fmt.Sscan(string(out), &own.Cur); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("33\n44\n44 55 66\n0027\n/made/for/it\n123\n5\n6\n%d\nCapEff:\t0000000000000020\nCapBnd:\t0000000000000021", own.Cur)
	if got != want {
		t.Errorf("process: %q\nwant %q", got, want)
	}
	mine, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil || strings.TrimSpace(string(mine)) == "123" {
		t.Errorf("our own oom_score_adj is %s, %v", mine, err)
	}
}

func TestMounts(t *testing.T) {
	root := busyboxRoot(t)
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "file"), []byte("from the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/run/away", filepath.Join(root, "etc/resolv.conf")); err != nil {
		t.Fatal(err)
	}
	spec := config(root)
	spec.Root.Readonly = true
	spec.Mounts = append(spec.Mounts,
		specs.Mount{Destination: "/data/deep", Type: "bind", Source: host, Options: []string{"rbind", "ro"}},
		specs.Mount{Destination: "/etc/resolv.conf", Type: "bind", Source: filepath.Join(host, "file"), Options: []string{"bind"}},
		specs.Mount{Destination: "/scratch", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "size=64k", "mode=700"}},
		specs.Mount{Destination: "/scratch/in/it", Type: "tmpfs", Source: "tmpfs"},
	)
	got := sh(t, spec, "cat /data/deep/file /etc/resolv.conf; touch /data/deep/x /x; touch /scratch/in/it/x && stat -c %a /scratch; grep -c 'size=64k' /proc/mounts")
	want := "from the host\nfrom the host\n700\n1\ntouch: /data/deep/x: Read-only file system\ntouch: /x: Read-only file system"
	if got != want {
		t.Errorf("mounts: %q; want %q", got, want)
	}
	// The image's link was followed within the image.
	if _, err := os.Stat(filepath.Join(root, "run/away")); err != nil {
		t.Error(err)
	}
}

// What an image's links would divert is refused, or stays within it.
func TestHostileImage(t *testing.T) {
	outside := t.TempDir()
	for _, link := range []string{"dev", "proc", "sys"} {
		root := busyboxRoot(t)
		if err := os.Symlink(outside, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
		if _, err := run(t, config(root, "true"), nil); !errors.Is(err, ErrUnsafeMount) {
			t.Errorf("/%s is a link: %v; want %v", link, err, ErrUnsafeMount)
		}
	}
	root := busyboxRoot(t)
	for _, link := range []string{"data", "work"} {
		if err := os.Symlink("../../../../../.."+outside, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	spec := config(root)
	spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/data/x", Type: "tmpfs", Source: "tmpfs"})
	spec.Process.Cwd = "/work/y"
	if got := sh(t, spec, "pwd; test -d /data/x && echo mounted"); got != outside+"/y\nmounted" {
		t.Errorf("links to outside: %q", got)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("outside of the root: %v, %v; want nothing", entries, err)
	}
	// CVE-2024-21626: a working directory by way of an inherited descriptor.
	for fd := range 20 {
		spec := config(root, "true")
		spec.Process.Cwd = fmt.Sprintf("/proc/self/fd/%d", fd)
		if _, err := run(t, spec, nil); err == nil {
			t.Errorf("working directory %s was entered", spec.Process.Cwd)
		}
	}
}

func TestRefused(t *testing.T) {
	root := busyboxRoot(t)
	for name, change := range map[string]func(*specs.Spec){
		"no process":           func(s *specs.Spec) { s.Process = nil },
		"no arguments":         func(s *specs.Spec) { s.Process.Args = nil },
		"relative cwd":         func(s *specs.Spec) { s.Process.Cwd = "x" },
		"environment":          func(s *specs.Spec) { s.Process.Env = []string{"=x"} },
		"no root":              func(s *specs.Spec) { s.Root = nil },
		"no mount namespace":   func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[:5] },
		"two of a kind":        func(s *specs.Spec) { s.Linux.Namespaces = append(s.Linux.Namespaces, s.Linux.Namespaces[0]) },
		"unknown namespace":    func(s *specs.Spec) { s.Linux.Namespaces[0].Type = "space" },
		"namespace of another": func(s *specs.Spec) { setPath(s, specs.NetworkNamespace, "/proc/self/ns/uts") },
		"no mappings":          func(s *specs.Spec) { s.Linux.UIDMappings = nil },
		"masked root":          func(s *specs.Spec) { s.Linux.MaskedPaths = []string{"/"} },
		"read-only root path":  func(s *specs.Spec) { s.Linux.ReadonlyPaths = []string{"/./proc/.."} },
		"host sysctl":          func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"vm.swappiness": "1"} },
		"sysctl that climbs":   func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net/../vm/swappiness": "1"} },
		"rlimit":               func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_LUCK"}} },
		"mount on the root":    func(s *specs.Spec) { s.Mounts[0].Destination = "/." },
		"mount option":         func(s *specs.Spec) { s.Mounts[1].Options = []string{"nosuch=1"} },
		"bind without source":  func(s *specs.Spec) { s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "bind"}) },
		"propagation":          func(s *specs.Spec) { s.Linux.RootfsPropagation = "everywhere" },
		"apparmor":             func(s *specs.Spec) { s.Process.ApparmorProfile = "x" },
		"user without mapping": func(s *specs.Spec) { s.Process.User.UID = 70000 },
		"device":               func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/etc/x", Type: "x"}} },
	} {
		spec := config(root, "true")
		change(spec)
		o, err := run(t, spec, nil)
		if err == nil {
			t.Errorf("%s: status %d; want an error", name, o.status)
		}
	}
}
