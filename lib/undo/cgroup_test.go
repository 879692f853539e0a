package undo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const sticky = 0o755 | fs.ModeSticky

// cgroupRoots returns a directory of this machine's cgroup hierarchies that a
// group can be made in: all of v1 that the kill needs, or v2.
func cgroupRoots(t *testing.T) []string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	var st unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &st); err != nil {
		t.Fatal(err)
	}
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		return []string{"/sys/fs/cgroup"}
	}
	return []string{"/sys/fs/cgroup/memory", "/sys/fs/cgroup/freezer", "/sys/fs/cgroup/pids"}
}

// testDirs names a group of this test in each hierarchy, below a parent.
func testDirs(t *testing.T) (parents, dirs []string) {
	t.Helper()
	for _, root := range cgroupRoots(t) {
		parent := filepath.Join(root, fmt.Sprintf("undo-test-%d", os.Getpid()))
		parents = append(parents, parent)
		dirs = append(dirs, filepath.Join(parent, "ps_1"))
	}
	t.Cleanup(func() {
		for i := range dirs {
			for _, dir := range []string{dirs[i], parents[i]} {
				if err := rmdirTree(dir); err != nil {
					t.Error(err)
				}
			}
		}
	})
	return parents, dirs
}

func mkdirs(t *testing.T, mode fs.FileMode, dirs []string) []Dir {
	t.Helper()
	var made []Dir
	for _, dir := range dirs {
		if err := os.MkdirAll(filepath.Dir(dir), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(dir, mode); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err != nil {
			t.Fatal(err)
		}
		made = append(made, Dir{dir, st.Ino})
	}
	return made
}

func left(dirs []string) (n int) {
	for _, dir := range dirs {
		if _, err := os.Lstat(dir); err == nil {
			n++
		}
	}
	return n
}

func TestRemoveCgroupNamesItByInode(t *testing.T) {
	parents, dirs := testDirs(t)
	made := mkdirs(t, sticky, dirs)
	other := []Dir{{made[0].Path, made[0].Ino + 1}}
	if err := RemoveCgroups(other); err != nil || left(dirs) != len(dirs) {
		t.Fatalf("with another inode: %v, %d of %d left; want all", err, left(dirs), len(dirs))
	}
	if err := os.Mkdir(filepath.Join(dirs[0], "child"), 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time everything is gone
		if err := RemoveCgroups(made); err != nil || left(dirs) != 0 {
			t.Fatalf("with its inode: %v, %d left", err, left(dirs))
		}
	}
	if n := left(parents); n != 0 {
		t.Errorf("%d of our parents are left", n)
	}
}

// A command that was killed between mkdir and writing the inode leaves an
// entry with the path alone.
func TestRemoveCgroupWithoutInode(t *testing.T) {
	parents, dirs := testDirs(t)
	var byPath []Dir
	for _, dir := range dirs {
		byPath = append(byPath, Dir{Path: dir})
	}
	mkdirs(t, 0o755, dirs)
	if err := RemoveCgroups(byPath); err != nil || left(dirs) != len(dirs) {
		t.Fatalf("somebody else's: %v, %d of %d left; want all", err, left(dirs), len(dirs))
	}
	for _, dir := range dirs {
		if err := os.Chmod(dir, sticky); err != nil {
			t.Fatal(err)
		}
	}
	if err := RemoveCgroups(byPath); err != nil || left(dirs) != 0 {
		t.Fatalf("ours: %v, %d left", err, left(dirs))
	}
	if n := left(parents); n != len(parents) {
		t.Errorf("%d parents of somebody else left; want %d", n, len(parents))
	}
}

func TestRemoveCgroupKillsForkBomb(t *testing.T) {
	_, dirs := testDirs(t)
	made := mkdirs(t, sticky, dirs)
	limit := filepath.Join(dirs[len(dirs)-1], "pids.max")
	if _, err := os.Stat(limit); err != nil { // v2 hands it down when asked
		control := filepath.Dir(filepath.Dir(limit))
		for _, dir := range []string{filepath.Dir(control), control} {
			if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+pids"), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.WriteFile(limit, []byte("300"), 0); err != nil {
		t.Fatal(err)
	}
	var join strings.Builder
	for _, dir := range dirs {
		fmt.Fprintf(&join, "echo $$ >%s/cgroup.procs; ", dir)
	}
	cmd := exec.Command("sh", "-c", join.String()+"echo in; b() { b 2>/dev/null & b 2>/dev/null & }; b; while :; do :; done")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	if err := RemoveCgroups(made); err != nil || left(dirs) != 0 {
		t.Errorf("%v, %d left", err, left(dirs))
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(interface{ Signal() unix.Signal }).Signal() != unix.SIGKILL {
		t.Errorf("its first process ended by %v; want killed", err)
	}
}

func TestKillCgroupThawsWhatIsFrozen(t *testing.T) {
	_, dirs := testDirs(t)
	mkdirs(t, sticky, dirs)
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		if err := write(dir, "cgroup.procs", fmt.Sprint(cmd.Process.Pid)); err != nil {
			t.Fatal(err)
		}
		for file, value := range map[string]string{"freezer.state": "FROZEN", "cgroup.freeze": "1"} {
			if err := write(dir, file, value); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := KillCgroup(ctx, dirs); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("the frozen process ended by %v; want killed", err)
	}
}

// TestRemoveDeepCgroup: a container that may make groups makes them deeper than
// any path reaches, and has a process there.
func TestRemoveDeepCgroup(t *testing.T) {
	_, dirs := testDirs(t)
	made := mkdirs(t, sticky, dirs)
	name := strings.Repeat("x", unix.NAME_MAX)
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for _, dir := range dirs {
		at, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		for range 2 * unix.PathMax / len(name) {
			if err == nil {
				err = unix.Mkdirat(at, name, 0o755)
			}
			if err == nil {
				parent := at
				at, err = unix.Openat(parent, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
				_ = unix.Close(parent)
			}
		}
		if err == nil {
			err = write(fmt.Sprintf("/proc/self/fd/%d", at), "cgroup.procs", fmt.Sprint(cmd.Process.Pid))
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Close(at); err != nil {
			t.Fatal(err)
		}
	}
	if err := RemoveCgroups(made); err != nil || left(dirs) != 0 {
		t.Errorf("%v, %d left", err, left(dirs))
		_ = cmd.Process.Kill()
	}
	<-ended
}
