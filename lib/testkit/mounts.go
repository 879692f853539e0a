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

// mountAll gives the host its own /proc, /sys, /run, /etc, cgroup tree and
// store. The propagation is the one systemd sets at boot: everything shared,
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
	// Below a new mount the old one would still be listed, and mislead
	// programs that look for their cgroup in the list.
	for _, old := range []string{"/sys", "/proc", "/run"} {
		if err := unix.Unmount(old, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			return &os.PathError{Op: "unmount", Path: old, Err: err}
		}
	}
	private := filepath.Join(c.Dir, "private")
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
		{"private", private, "tmpfs", safe, "mode=700"},
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
	if err := privateEtc(private, resolv, hosts); err != nil {
		return err
	}
	if c.NoStore {
		return nil
	}
	return mountLoop(filepath.Join(c.Dir, storeImage), filepath.Join(c.Dir, "store"))
}

// privateEtc lays a writable copy over /etc, whose resolv.conf is a plain file.
func privateEtc(private string, resolv, hosts []byte) error {
	upper, work := filepath.Join(private, "etc"), filepath.Join(private, "work")
	if err := errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755)); err != nil {
		return err
	}
	data := "lowerdir=/etc,upperdir=" + upper + ",workdir=" + work
	if err := mount("etc", "/etc", "overlay", 0, data); err != nil {
		return err
	}
	for name, text := range map[string][]byte{"resolv.conf": resolv, "hosts": hosts} {
		path := filepath.Join("/etc", name)
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
	}
	return nil
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
