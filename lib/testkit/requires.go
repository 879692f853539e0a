package testkit

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Requires skips the test where the machine lacks one of the named things.
// An unknown name fails it: a misspelt one would skip for ever.
//
// Names are root, btrfs (mkfs.btrfs, loop devices and the file system),
// overlay, cgroup-v1, cgroup-v2, busybox (a static one), debian (the cached
// root file system), validation (the cached programs) and programs: ip, nft,
// iptables, iptables-legacy (and ip_tables in the kernel), jq, runc, crun, skopeo, umoci, docker-registry, slirp4netns, git,
// dockerd, docker, podman, containerd, ctr, script,
// systemd.
func Requires(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		check := requirements[name]
		if check == nil {
			t.Fatalf("testkit.Requires: no requirement is named %q", name)
		}
		if err := check(); err != nil {
			t.Skipf("needs %s: %v", name, err)
		}
	}
}

var requirements = map[string]func() error{
	"root":            root,
	"btrfs":           btrfs,
	"overlay":         func() error { return filesystem("overlay") },
	"cgroup-v1":       func() error { return cgroupVersion(false) },
	"cgroup-v2":       func() error { return cgroupVersion(true) },
	"busybox":         staticBusybox,
	"debian":          debian,
	"validation":      validation,
	"ip":              program("ip"),
	"nft":             program("nft"),
	"iptables":        program("iptables"),
	"iptables-legacy": legacyTables,
	"jq":              program("jq"),
	"runc":            program("runc"),
	"crun":            program("crun"),
	"skopeo":          program("skopeo"),
	"umoci":           program("umoci"),
	"docker-registry": program("docker-registry"),
	"slirp4netns":     program("slirp4netns"),
	"git":             program("git"),
	"systemd":         program("/lib/systemd/systemd"),
	"dockerd":         program("dockerd"),
	"docker":          program("docker"),
	"podman":          program("podman"),
	"containerd":      program("containerd"),
	"ctr":             program("ctr"),
	"script":          program("script"),
}

func root() error {
	if os.Geteuid() != 0 {
		return errors.New("the user is not root")
	}
	return nil
}

func btrfs() error {
	if err := program("mkfs.btrfs")(); err != nil {
		return err
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		return err
	}
	return filesystem("btrfs")
}

// filesystem tells whether the kernel has it, now or after loading its module.
func filesystem(name string) error {
	known := func() bool {
		text, err := os.ReadFile("/proc/filesystems")
		return err == nil && strings.Contains(string(text), "\t"+name+"\n")
	}
	if known() {
		return nil
	}
	out, err := exec.Command(lookSbin("modprobe"), name).CombinedOutput()
	if !known() {
		return fmt.Errorf("the kernel has none: modprobe: %v: %s", err, out)
	}
	return nil
}

// legacyTables: where programs are built without it, the kernel may be as well.
func legacyTables() error {
	if err := program("iptables-legacy")(); err != nil {
		return err
	}
	const names = "/proc/self/net/ip_tables_names"
	if _, err := os.Stat(names); err == nil {
		return nil
	}
	out, err := exec.Command(lookSbin("modprobe"), "ip_tables").CombinedOutput()
	if _, statErr := os.Stat(names); statErr != nil {
		return fmt.Errorf("the kernel has none: modprobe: %v: %s", err, out)
	}
	return nil
}

func cgroupVersion(v2 bool) error {
	var st unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &st); err != nil {
		return err
	}
	if v2 != (st.Type == unix.CGROUP2_SUPER_MAGIC) {
		return fmt.Errorf("%s is the other version", cgroupRoot)
	}
	return nil
}

// staticBusybox: an interpreter in the program is a dynamic one's.
func staticBusybox() error {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	text, err := os.ReadFile(path)
	if err == nil && strings.Contains(string(text), "/ld-linux") {
		err = fmt.Errorf("%s is not static", path)
	}
	return err
}

func debian() error {
	_, err := os.Stat(filepath.Join(debianDir(), "etc/debian_version"))
	return err
}

func validation() error {
	_, err := os.Stat(filepath.Join(Validation(), "runtimetest"))
	return err
}

func program(name string) func() error {
	return func() error {
		_, err := exec.LookPath(lookSbin(name))
		return err
	}
}
