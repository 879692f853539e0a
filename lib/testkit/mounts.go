package testkit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const storeImage = "store.btrfs"

// mountAll gives the host its own root, /proc, /sys, /run, cgroup tree and
// store; resolv.conf becomes a plain file. The propagation is the one systemd sets at boot: everything shared,
// but with nobody outside.
func (c config) mountAll() error {
	resolv, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if c.Outside {
		resolv = []byte("nameserver 10.0.2.3\n")
	}
	hosts, err := os.ReadFile("/etc/hosts")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	links, err := cgroupLinks()
	if err != nil {
		return err
	}
	if err := enterCgroups(c.Cgroups); err != nil {
		return err
	}
	if err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := c.enterRoot(); err != nil {
		return err
	}
	const safe = unix.MS_NOSUID | unix.MS_NODEV
	for _, m := range []struct {
		source, target, fstype string
		flags                  uintptr
		data                   string
	}{
		{"", "/", "", unix.MS_REC | unix.MS_SHARED, ""},
		{"proc", "/proc", "proc", safe | unix.MS_NOEXEC, ""},
		{"sysfs", "/sys", "sysfs", safe | unix.MS_NOEXEC, ""},
		{"run", "/run", "tmpfs", safe, "mode=755"},
	} {
		if err := mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
			return err
		}
	}
	if err := mountCgroups(c.Cgroups, links); err != nil {
		return err
	}
	// What runtimes look at, where the kernel has it.
	for fstype, target := range map[string]string{"securityfs": "/sys/kernel/security", "bpf": "/sys/fs/bpf"} {
		if err := mount(fstype, target, fstype, safe|unix.MS_NOEXEC, ""); err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	for path, text := range map[string][]byte{"/etc/resolv.conf": resolv, "/etc/hosts": hosts} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
	}
	if c.NoStore {
		return nil
	}
	return mountLoop(filepath.Join(c.Dir, storeImage), filepath.Join(c.Dir, "store"))
}

func mount(source, target, fstype string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return &os.PathError{Op: strings.TrimRight("mount "+fstype, " "), Path: target, Err: err}
	}
	return nil
}

func makeBtrfs(file string, size int64) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return err
	}
	if out, err := exec.Command(lookSbin("mkfs.btrfs"), "-q", "--nodiscard", file).CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs.btrfs %s: %w: %s", file, err, out)
	}
	return nil
}

// lookSbin is the path of an administrator's program, also where PATH lacks
// its directory; the name itself if it is nowhere.
func lookSbin(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path := filepath.Join(dir, name); exec.Command("test", "-x", path).Run() == nil {
			return path
		}
	}
	return name
}
