package testkit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// hierarchy is one mounted cgroup file system, and the test's group in it.
type hierarchy struct {
	Point string // where it is mounted
	V2    bool
	Data  string // options that name a v1 hierarchy: cpu,cpuacct or name=systemd
	Dir   string // the test's group, seen from the machine
}

var groupCount atomic.Int64

// makeCgroups makes a group for a test in every hierarchy, with all that the
// hierarchy can control. What was made is returned also with an error.
func makeCgroups() ([]hierarchy, error) {
	all, err := hierarchies()
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no cgroup file system is mounted on %s", cgroupRoot)
	}
	name := fmt.Sprintf("shocker-test-%d-%d", os.Getpid(), groupCount.Add(1))
	for i := range all {
		h := &all[i]
		sweepCgroups(h.Point)
		if h.V2 {
			if err := delegate(h.Point); err != nil {
				return all[:i], err
			}
		}
		h.Dir = filepath.Join(h.Point, name)
		if err := os.Mkdir(h.Dir, 0o755); err != nil {
			return all[:i], err
		}
		if err := inheritCpuset(h.Point, h.Dir); err != nil {
			return all[:i+1], err
		}
	}
	return all, nil
}

// hierarchies are the cgroup file systems below /sys/fs/cgroup (proc(5),
// mountinfo).
func hierarchies() ([]hierarchy, error) {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var all []hierarchy
	for line := range strings.Lines(string(info)) {
		left, right, _ := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if len(l) < 5 || len(r) < 3 || !strings.HasPrefix(l[4], cgroupRoot) {
			continue
		}
		switch r[0] {
		case "cgroup2":
			all = append(all, hierarchy{Point: l[4], V2: true})
		case "cgroup":
			all = append(all, hierarchy{Point: l[4], Data: hierarchyName(r[2])})
		}
	}
	return all, nil
}

// hierarchyName leaves of a mount's options those that say which it is.
func hierarchyName(options string) string {
	var keep []string
	for o := range strings.SplitSeq(options, ",") {
		switch key, _, _ := strings.Cut(o, "="); key {
		case "rw", "ro", "xattr", "noprefix", "clone_children", "release_agent", "cpuset_v2_mode", "favordynmods":
		default:
			keep = append(keep, o)
		}
	}
	return strings.Join(keep, ",")
}

// delegate lets the groups below dir have every controller.
func delegate(dir string) error {
	names, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, c := range strings.Fields(string(names)) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0); err != nil {
			return err
		}
	}
	return nil
}

// inheritCpuset: a new cpuset of v1 is empty, and takes no process.
func inheritCpuset(from, to string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		text, err := os.ReadFile(filepath.Join(from, name))
		if errors.Is(err, fs.ErrNotExist) { // another controller, or v2
			return nil
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), text, 0)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// enterCgroups moves this process into the test's groups and makes them the
// roots of what this thread, and what it starts, sees. In v2 a group that
// gives controllers to its children holds no process, so a child is made.
func enterCgroups(groups []hierarchy) error {
	for _, h := range groups {
		if err := enterCgroup(h.Dir); err != nil {
			return err
		}
	}
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("make a cgroup namespace: %w", err)
	}
	for _, h := range groups {
		if !h.V2 {
			continue
		}
		leaf := filepath.Join(h.Dir, "init")
		if err := os.Mkdir(leaf, 0o755); err != nil {
			return err
		}
		if err := enterCgroup(leaf); err != nil {
			return err
		}
	}
	return nil
}

func enterCgroup(dir string) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0)
}

// cgroupLinks are the symbolic links that stand beside v1 hierarchies: cpu
// for cpu,cpuacct.
func cgroupLinks() (map[string]string, error) {
	entries, err := os.ReadDir(cgroupRoot)
	if err != nil {
		return nil, err
	}
	links := map[string]string{}
	for _, e := range entries {
		if e.Type() == fs.ModeSymlink {
			target, err := os.Readlink(filepath.Join(cgroupRoot, e.Name()))
			if err != nil {
				return nil, err
			}
			links[e.Name()] = target
		}
	}
	return links, nil
}

// mountCgroups mounts all hierarchies where they are on the machine, but with
// the test's groups as their roots.
func mountCgroups(groups []hierarchy, links map[string]string) error {
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if groups[0].Point != cgroupRoot { // v1 hierarchies are mounted on directories of a tmpfs
		if err := mount("cgroup", cgroupRoot, "tmpfs", flags, "mode=755"); err != nil {
			return err
		}
	}
	for _, h := range groups {
		if err := os.MkdirAll(h.Point, 0o755); err != nil {
			return err
		}
		fstype := "cgroup"
		if h.V2 {
			fstype = "cgroup2"
		}
		if err := mount(fstype, h.Point, fstype, flags, h.Data); err != nil {
			return err
		}
	}
	for name, target := range links {
		if err := os.Symlink(target, filepath.Join(cgroupRoot, name)); err != nil {
			return err
		}
	}
	return nil
}

// removeCgroups removes the test's groups with all that was made in them.
// The processes are dead, but the kernel may need a moment to see that.
func removeCgroups(groups []hierarchy) error {
	var errs []error
	for _, h := range groups {
		end := time.Now().Add(Patience(10 * time.Second))
		err := removeTree(h.Dir)
		for errors.Is(err, unix.EBUSY) && time.Now().Before(end) {
			time.Sleep(5 * time.Millisecond)
			err = removeTree(h.Dir)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}

// sweepCgroups removes groups of test processes that were killed. One that is
// not empty yet is left to the next sweep.
func sweepCgroups(dir string) {
	old, err := filepath.Glob(filepath.Join(dir, "shocker-test-*-*"))
	if err != nil {
		return
	}
	for _, group := range old {
		pid, err := strconv.Atoi(strings.Split(filepath.Base(group), "-")[2])
		if err == nil && errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			_ = removeTree(group)
		}
	}
}
