package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// enemy is what the attacks do in the container, where a shell cannot. It
// prints what it could do, one line each; nothing means that it could not.
func enemy(args []string) int {
	do := map[string]func([]string) error{
		"descriptors": descriptors, "watch": watch, "type": typeInto, "key": findKey,
		"open": openNode, "subvolumes": subvolumes, "wait": func([]string) error { return unix.Pause() },
	}[args[0]]
	if do == nil {
		fmt.Println("no such attack:", args)
		return 1
	}
	if err := do(args[1:]); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// descriptors prints those that are open beside stdio.
func descriptors([]string) error {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return err
	}
	names, err := dir.Readdirnames(-1)
	for _, n := range names {
		to, _ := os.Readlink("/proc/self/fd/" + n)
		// Those of Go's own poller, and of this directory.
		if n < "3" && len(n) == 1 || strings.HasPrefix(to, "anon_inode:[event") || to == fmt.Sprintf("/proc/%d/fd", os.Getpid()) {
			continue
		}
		fmt.Println(n, to)
	}
	return err
}

// watch looks at every process that comes up beside it, until there is a file
// /stop: whether it can get at its memory or its descriptors before it is the
// container's own, or write to the runtime's program, which is the file with
// the given device and inode.
func watch(args []string) error {
	program := args[0] // DEV:INO
	told := map[string]bool{}
	tell := func(format string, a ...any) {
		if s := fmt.Sprintf(format, a...); !told[s] {
			told[s] = true
			fmt.Println(s)
		}
	}
	var own unix.Stat_t
	if err := unix.Stat("/proc/self/exe", &own); err != nil {
		return err
	}
	known := map[string]bool{"1": true, "self": true, "thread-self": true, strconv.Itoa(os.Getpid()): true}
	var held []int
	proc, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := os.WriteFile("/ready", nil, 0o644); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for unix.Access("/stop", unix.F_OK) != nil {
		if _, err := unix.Seek(proc, 0, 0); err != nil {
			return err
		}
		var names []string
		for {
			n, err := unix.ReadDirent(proc, buf)
			if err != nil || n <= 0 {
				break
			}
			_, _, names = unix.ParseDirent(buf[:n], -1, names)
		}
		for _, pid := range names {
			if pid[0] < '0' || pid[0] > '9' || known[pid] {
				continue
			}
			dir := "/proc/" + pid + "/"
			var st unix.Stat_t
			fd, err := unix.Open(dir+"exe", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				continue // not yet, or not for us
			}
			if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
				unix.Close(fd)
				continue
			}
			if fmt.Sprintf("%d:%d", st.Dev, st.Ino) != program {
				unix.Close(fd)
				continue
			}
			held = append(held, fd)
			name, _ := os.ReadFile(dir + "cmdline")
			if bytes.HasPrefix(name, []byte("/proc/self/exe")) {
				continue // it is the container's own, and has executed the runtime
			}
			name = bytes.ReplaceAll(name, []byte{0}, []byte(" "))
			tell("%q has not left the runtime's program yet", name)
			for _, file := range []string{"mem", "environ"} {
				if f, err := unix.Open(dir+file, unix.O_RDWR|unix.O_CLOEXEC, 0); err == nil {
					tell("%s of %q is open", file, name)
					unix.Close(f)
				}
			}
			if fds, err := os.ReadDir(dir + "fd"); err == nil && len(fds) > 0 {
				tell("descriptors of %q can be seen", name)
			}
		}
	}
	for _, fd := range held {
		_, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err == nil || errors.Is(err, unix.ETXTBSY) { // that is luck
			tell("the runtime's program can be written to: %v", err)
		}
	}
	return nil
}

// typeInto pushes text into the terminals that it can reach, as if somebody
// had typed it there (ioctl_tty(2), TIOCSTI).
func typeInto(args []string) error {
	fds := []int{0, 1, 2}
	for _, path := range []string{"/dev/tty", "/dev/console"} {
		if fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY, 0); err == nil {
			fds = append(fds, fd)
		}
	}
	for _, fd := range fds {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			continue
		}
		if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
			fmt.Printf("descriptor %d is a terminal\n", fd)
		}
		for _, c := range []byte(args[0] + "\n") { // what is no line yet is not counted (TIOCINQ)
			_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCSTI, uintptr(unsafe.Pointer(&c)))
			if errno == 0 {
				fmt.Printf("typed %q into %d\n", c, fd)
			}
		}
	}
	return nil
}

// findKey looks for a key of that name on its session's keyring, and reads it.
func findKey(args []string) error {
	id, err := unix.KeyctlSearch(unix.KEY_SPEC_SESSION_KEYRING, "user", args[0], 0)
	if err != nil {
		return nil
	}
	text := make([]byte, 100)
	n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, id, text, 0)
	fmt.Printf("found key %q: %q %v\n", args[0], text[:max(n, 0)], err)
	return nil
}

// openNode opens files, and says which could be.
func openNode(args []string) error {
	for _, path := range args {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		n, err := unix.Read(fd, make([]byte, 512))
		fmt.Printf("%s is open: read %d bytes, %v\n", path, n, err)
	}
	return nil
}

// subvolumes makes a chain of nested subvolumes, and makes the last read-only.
func subvolumes(args []string) error {
	depth, _ := strconv.Atoi(args[0])
	path := "/"
	for range depth {
		dir, err := os.Open(path)
		if err != nil {
			return err
		}
		var arg struct { // struct btrfs_ioctl_vol_args
			fd   int64
			name [4088]byte
		}
		copy(arg.name[:], "sub")
		const create = 1<<30 | unsafe.Sizeof(arg)<<16 | 0x94<<8 | 14 // BTRFS_IOC_SUBVOL_CREATE
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), create, uintptr(unsafe.Pointer(&arg)))
		dir.Close()
		if errno != 0 {
			return fmt.Errorf("make subvolume in %s: %w", path, errno)
		}
		path = filepath.Join(path, "sub")
	}
	fmt.Println("made", depth)
	return nil
}
