package stats

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/cgroup/group"
)

// WatchOOM calls killed each time the kernel has killed for want of memory in
// the group, and returns when the group is gone (v1), or empty (v2).
func WatchOOM(ctx context.Context, g *group.Group, killed func()) error {
	h, ok := g.Find("memory")
	if !ok {
		return fmt.Errorf("watch for want of memory: memory: %w", group.ErrNoController)
	}
	watch := watchOOM1
	if h.Version == 2 {
		watch = watchOOM2
	}
	err := watch(ctx, g.In(h), killed)
	if err != nil {
		err = fmt.Errorf("watch %s for want of memory: %w", g.In(h), err)
	}
	return err
}

// watchOOM1 has an eventfd told (kernel Documentation/admin-guide/cgroup-v1/
// memory.rst, section 10). It is also told when the group is removed.
func watchOOM1(ctx context.Context, dir string, killed func()) (retErr error) {
	control, err := os.Open(filepath.Join(dir, "memory.oom_control"))
	if err != nil {
		return err
	}
	defer control.Close()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	events, stop := cancelled(ctx, fd, "eventfd")
	defer stop()
	if err := group.Write(dir, "cgroup.event_control", fmt.Sprintf("%d %d", fd, control.Fd())); err != nil {
		return err
	}
	for {
		var count [8]byte
		if _, err := events.Read(count[:]); err != nil {
			return because(ctx, err)
		}
		_, err := os.Stat(filepath.Join(dir, "memory.oom_control"))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		killed()
	}
}

// watchOOM2 sees memory.events and cgroup.events change (kernel
// Documentation/admin-guide/cgroup-v2.rst).
func watchOOM2(ctx context.Context, dir string, killed func()) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return os.NewSyscallError("inotify_init1", err)
	}
	events, stop := cancelled(ctx, fd, "inotify")
	defer stop()
	for _, file := range []string{"memory.events", "cgroup.events"} {
		path := filepath.Join(dir, file)
		if _, err := unix.InotifyAddWatch(fd, path, unix.IN_MODIFY|unix.IN_DELETE_SELF); err != nil {
			return &os.PathError{Op: "watch", Path: path, Err: err}
		}
	}
	f := &files{dir: dir}
	seen := f.table("memory.events")["oom_kill"]
	for first := true; ; first = false {
		if !first {
			var buf [4096]byte // of which file does not matter
			if _, err := events.Read(buf[:]); err != nil {
				return because(ctx, err)
			}
		}
		populated, err := group.Read(dir, "cgroup.events")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		// Read after it: the last process may have been killed.
		if n := f.table("memory.events")["oom_kill"]; n > seen {
			seen = n
			killed()
		}
		if f.err != nil {
			return f.err
		}
		if table(populated)["populated"] == 0 {
			return nil
		}
	}
}

// cancelled makes a file of a descriptor whose reads end with ctx.
func cancelled(ctx context.Context, fd int, name string) (f *os.File, stop func()) {
	f = os.NewFile(uintptr(fd), name)
	unhook := context.AfterFunc(ctx, func() {
		_ = f.SetReadDeadline(time.Unix(1, 0)) // a descriptor that is polled has deadlines
	})
	return f, func() {
		unhook()
		f.Close()
	}
}

// because is the reason for a read that has ended.
func because(ctx context.Context, err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return context.Cause(ctx)
	}
	return err
}
