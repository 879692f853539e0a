package testkit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/sys"
)

// enterRoot gives the host a root of its own: all files of the machine, to
// which it writes as it likes, and the machine sees nothing of it. What is
// written lies in a tmpfs that nothing but the overlays knows, since it stays
// behind with the machine's mounts.
//
//	/                    overlay on the machine's
//	other local disks    overlays as well
//	other mounts         read-only
//	/dev                 the machine's
//	Dir, Writable        the machine's own
//	/proc, /sys, /run    none
func (c config) enterRoot() error {
	machine, err := sys.Mounts()
	if err != nil {
		return err
	}
	wd, err := os.Getwd()
	if err != nil {
		return err
	}
	private := filepath.Join(c.Dir, "private")
	if err := mount("private", private, "tmpfs", unix.MS_NOSUID, "mode=755"); err != nil {
		return err
	}
	root := filepath.Join(private, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	if err := overlay(private, "/", root); err != nil {
		return err
	}
	for _, m := range machine {
		if err := c.carry(m, private, root); err != nil {
			return err
		}
	}
	if err := mount("/dev", root+"/dev", "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	for _, path := range append([]string{c.Dir}, c.Writable...) {
		if err := mount(path, root+path, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	// pivot_root(2) with the same directory for both stacks the old root on
	// the new one.
	err = os.Chdir(root)
	if err == nil {
		err = os.NewSyscallError("pivot_root", unix.PivotRoot(".", "."))
	}
	if err == nil {
		err = os.NewSyscallError("unmount the machine's root", unix.Unmount(".", unix.MNT_DETACH))
	}
	if err == nil {
		err = os.Chdir(wd)
	}
	return err
}

// carry brings a mount of the machine into the new root, unless the host has
// its own there, or it belongs to another test.
func (c config) carry(m sys.MountPoint, private, root string) error {
	below := func(dir string) bool { return m.Path == dir || strings.HasPrefix(m.Path, dir+"/") }
	for _, own := range []string{"/proc", "/sys", "/run", "/dev", "/etc", c.Dir} {
		if below(own) {
			return nil
		}
	}
	if m.Path == "/" || strings.HasPrefix(m.Path, filepath.Dir(c.Dir)+"/") {
		return nil
	}
	st, err := os.Lstat(m.Path)
	if errors.Is(err, fs.ErrNotExist) { // another is mounted above it
		return nil
	}
	if err != nil {
		return err
	}
	switch m.Type {
	case "ext4", "xfs", "btrfs", "tmpfs", "overlay":
		if st.IsDir() && overlay(private, m.Path, root+m.Path) == nil {
			return nil
		}
	}
	err = mount(m.Path, root+m.Path, "", unix.MS_BIND, "")
	if err == nil {
		err = mount("", root+m.Path, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
	}
	return err
}

// overlay mounts what is at lower on target, so that what is written to it
// gets into private.
func overlay(private, lower, target string) error {
	if strings.ContainsAny(lower, `:,\`) {
		return fmt.Errorf("mount an overlay of %s: the path would be several", lower)
	}
	dir, err := os.MkdirTemp(private, "")
	if err != nil {
		return err
	}
	// The root of the overlay is that of the upper layer.
	st, err := os.Stat(lower)
	if err != nil {
		return err
	}
	upper, work := filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	err = errors.Join(os.Mkdir(upper, 0o755), os.Chmod(upper, st.Mode()), os.Mkdir(work, 0o755))
	if err != nil {
		return err
	}
	return mount("overlay", target, "overlay", 0, "lowerdir="+lower+",upperdir="+upper+",workdir="+work)
}
