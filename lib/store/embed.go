package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/sys"
)

const (
	minSize = 512 << 20 // bytes; mkfs.btrfs wants about 110 MB
	// mountData: blocks of deleted subvolumes go back to the host's disk.
	mountData = "discard=async"
)

// embed mounts the sparse file ROOT.btrfs on root, making it if it is not
// there yet.
func embed(root string, talk func(string)) error {
	file := root + ".btrfs"
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		size, err := embeddedSize(root)
		if err != nil {
			return err
		}
		if err := format(file, size); err != nil {
			return err
		}
		talk(fmt.Sprintf("made the store %s in %s, a sparse file of up to %d GB", root, file, size/1_000_000_000))
	} else if err != nil {
		return err
	}
	loop, err := attachLoop(file)
	if err != nil {
		return err
	}
	defer loop.Close() // detaches by itself once it is not mounted
	err = sys.Mount(loop.Name(), root, "btrfs", unix.MS_NODEV|unix.MS_NOATIME, mountData)
	switch {
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%w: load the module with modprobe btrfs, or use a kernel that has it", ErrNoBtrfs)
	case err != nil:
		return fmt.Errorf("%s: %w (if it was cut or overwritten, bring it back, or move it away for an empty store)", file, err)
	}
	return nil
}

// embeddedSize is SHOCKER_STORE_SIZE in bytes, or 80 % of what is free.
func embeddedSize(root string) (int64, error) {
	if text := os.Getenv("SHOCKER_STORE_SIZE"); text != "" {
		size, err := strconv.ParseInt(text, 10, 64)
		if err != nil || size < minSize {
			return 0, fmt.Errorf("SHOCKER_STORE_SIZE: %q is not a number of bytes from %d up", text, minSize)
		}
		return size, nil
	}
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: root, Err: err}
	}
	size := int64(st.Bavail) * st.Bsize / 5 * 4
	if size < minSize {
		return 0, fmt.Errorf("only %d MB are free there: %d are needed", int64(st.Bavail)*st.Bsize/1_000_000, minSize/1_000_000)
	}
	return size, nil
}

// format makes file a btrfs of the given size; it has its name only when it
// is complete. What a killed command has left of it is replaced, and not used:
// its mkfs may still write.
func format(file string, size int64) (retErr error) {
	temp := file + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if retErr != nil {
			retErr = errors.Join(retErr, os.Remove(f.Name()))
		}
	}()
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return err
	}
	mkfs, err := lookSbin("mkfs.btrfs")
	if err != nil {
		return fmt.Errorf("%w: install btrfs-progs", err)
	}
	if out, err := exec.Command(mkfs, "-q", f.Name()).CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs.btrfs: %w: %s", err, bytes.TrimSpace(out))
	}
	return os.Rename(f.Name(), file)
}

// lookSbin finds an administrators' program, also where PATH lacks its place.
func lookSbin(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
		if _, err := os.Stat(dir + name); err == nil {
			return dir + name, nil
		}
	}
	return "", err
}

// attached returns the loop device that the file has, or nil. Where the store
// was unmounted while containers run, or is mounted elsewhere, it still has
// one: with a second the kernel would see a second disk, and two file systems
// that know nothing of each other would write to one file.
func attached(back *os.File) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(back.Fd()), &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: back.Name(), Err: err}
	}
	names, err := filepath.Glob("/sys/block/loop*/loop")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		dev, err := os.Open("/dev/" + filepath.Base(filepath.Dir(name))) // others may be read-only
		if errors.Is(err, fs.ErrNotExist) {
			continue // one that this /dev does not show
		}
		if err != nil {
			return nil, err
		}
		info, err := unix.IoctlLoopGetStatus64(int(dev.Fd()))
		if err == nil && info.Device == st.Dev && info.Inode == st.Ino {
			return dev, nil
		}
		dev.Close()
		if err != nil && !errors.Is(err, unix.ENXIO) { // it has just gone
			return nil, &os.PathError{Op: "look up", Path: dev.Name(), Err: err}
		}
	}
	return nil, nil
}

// attachLoop gives file a loop device that goes when nobody uses it any more
// (loop(4); LOOP_CONFIGURE is of kernel 5.8), or returns the one it has.
func attachLoop(file string) (*os.File, error) {
	back, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer back.Close()
	if dev, err := attached(back); dev != nil || err != nil {
		return dev, err
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: loop devices are needed where the store is not on btrfs", err)
	}
	defer control.Close()
	config := unix.LoopConfig{Fd: uint32(back.Fd())}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	copy(config.Info.File_name[:], file)
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, os.NewSyscallError("LOOP_CTL_GET_FREE", err)
		}
		dev, err := os.OpenFile("/dev/loop"+strconv.Itoa(n), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &config)
		if err == nil {
			return dev, nil
		}
		dev.Close()
		if !errors.Is(err, unix.EBUSY) { // somebody was faster
			return nil, &os.PathError{Op: "attach " + file + " to", Path: dev.Name(), Err: err}
		}
	}
}
