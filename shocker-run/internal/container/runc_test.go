package container

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// asRunc is what a container's program says under runc. Nothing of it stays.
func asRunc(t *testing.T, spec *specs.Spec) string {
	t.Helper()
	bundle := t.TempDir()
	id := fmt.Sprintf("shocker-test-%d-%s", os.Getpid(), filepath.Base(filepath.Dir(bundle)))
	s := *spec
	linux := *spec.Linux
	linux.CgroupsPath = "/" + id
	s.Linux = &linux
	data, err := json.Marshal(s)
	if err == nil {
		err = os.WriteFile(filepath.Join(bundle, "config.json"), data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("runc", "--root", filepath.Join(bundle, "state"), "run", "--bundle", bundle, id)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("runc: %v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// What a program sees is what it sees under runc, given the same config.
func TestAsRunc(t *testing.T) {
	root := busyboxRoot(t)
	if err := os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("root:x:0:0::/root:/bin/sh\nfoo:x:33:33::/srv/foo:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, "narrow"), 0o711); err != nil {
		t.Fatal(err)
	}
	host := hostDir(t, root)
	umask := uint32(0o027)
	mode := os.FileMode(0o600)
	// The options of all mounts, but for what the kernel numbers.
	const mounts = `while read id up dev of on options rest; do case "$on" in /proc/*|/sys/*|/dev/console) ;; *) echo "$on $options";; esac; done < /proc/self/mountinfo`
	for _, test := range []struct {
		name, script string
		change       func(*specs.Spec)
	}{
		{"environment", "env | grep -v ^SHLVL", func(s *specs.Spec) { s.Process.Env = []string{"PATH=/bin", "A=1", "HOME=", "B=3", "A=2"} }},
		{"home of a user", "echo $HOME", func(s *specs.Spec) { s.Process.Env, s.Process.User.UID = []string{"PATH=/bin"}, 33 }},
		{"user", "id -u; id -g; id -G; umask; cat /proc/self/status | grep -E 'Uid|Gid|Groups'", func(s *specs.Spec) {
			s.Process.User = specs.User{UID: 33, GID: 44, AdditionalGids: []uint32{55, 66}, Umask: &umask}
		}},
		{"capabilities", "grep -E 'Cap|NoNewPrivs' /proc/self/status", func(s *specs.Spec) {
			all := []string{"CAP_CHOWN", "CAP_KILL"}
			s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Permitted: all, Effective: all, Inheritable: all, Ambient: all}
			s.Process.User.UID, s.Process.NoNewPrivileges = 33, false
		}},
		{"limits", "ulimit -a", func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}, {Type: "RLIMIT_CORE"}}
		}},
		{"names", "hostname; cat /proc/sys/kernel/hostname; pwd", func(s *specs.Spec) { s.Process.Cwd = "/made/here" }},
		{"sysctls", "cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/msgmax", func(s *specs.Spec) {
			s.Linux.Sysctl = map[string]string{"net.ipv4.ip_default_ttl": "33", "kernel.msgmax": "4242"}
		}},
		{"mounts", mounts, func(s *specs.Spec) {
			s.Mounts = append(s.Mounts,
				specs.Mount{Destination: "/a", Source: host, Options: []string{"rbind", "ro", "nosuid"}},
				specs.Mount{Destination: "/b", Source: host, Options: []string{"bind", "rw", "noexec"}},
				specs.Mount{Destination: "/c", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=1m", "nodev", "noatime"}},
				specs.Mount{Destination: "/d", Source: host + "/file", Options: []string{"bind", "ro"}},
				specs.Mount{Destination: "/narrow", Type: "tmpfs", Source: "tmpfs"},
			)
			s.Root.Readonly = true
		}},
		{"modes of tmpfs", "stat -c '%a %u %n' /narrow /dev /dev/shm /dev/pts /dev/mqueue", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/narrow", Type: "tmpfs", Source: "tmpfs"})
		}},
		{"masked and read-only", "cat /proc/keys; ls /sys/firmware | wc -l; echo 1 > /proc/sys/kernel/domainname", func(*specs.Spec) {}},
		{"devices", "ls -l /dev /x/full | grep -o '^[-cbp].*[0-9], *[0-9]*'; readlink /dev/ptmx; readlink /dev/stdin; readlink /dev/fd", func(s *specs.Spec) {
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/x/full", Type: "c", Major: 1, Minor: 7, FileMode: &mode}}
		}},
		{"the image's own /dev", "ls -l /dev | grep -o '^[-cbp].*[0-9], *[0-9]*'", withoutDev},
		{"oom_score_adj", "cat /proc/self/oom_score_adj", func(s *specs.Spec) { n := 77; s.Process.OOMScoreAdj = &n }},
		{"descriptors", "ls /proc/self/fd", func(*specs.Spec) {}},
		{"session", "set -- $(cat /proc/$$/stat); echo $1 $4 $5 $6", func(*specs.Spec) {}},
		{"signals", "grep -E 'Sig(Blk|Ign|Cgt)' /proc/1/status", func(s *specs.Spec) { s.Process.Args = nil }},
	} {
		spec := config(root)
		withoutUser(spec)
		test.change(spec)
		spec.Process.Args = []string{"sh", "-c", test.script + "; true"}
		want := asRunc(t, spec)
		o, err := run(t, spec, nil)
		if got := strings.TrimSpace(o.out + o.errOut); err != nil || sorted(got) != sorted(want) {
			t.Errorf("%s:\n got %q, %v\nrunc %q", test.name, got, err, want)
		}
	}
}

// sorted puts lines in order: what goes to stdout and stderr may mix.
func sorted(text string) string {
	lines := strings.Split(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
