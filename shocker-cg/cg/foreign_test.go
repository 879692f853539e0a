package cg

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A group that somebody else has made is never touched, whatever is in it.
func TestForeignGroupOfTheSameName(t *testing.T) {
	h := newHost(t)
	dirs := h.foreign(h.CgroupParent + "/ps_1")
	h.fails(rec("ps_1", "{}"), "exists already", "up")
	sleep := inside(t, dirs)
	h.fails(rec("ps_1", "{}"), "exists already", "up")
	h.ok(rec("ps_1", "{}"), "down")
	for _, dir := range dirs {
		if !isThere(dir) {
			t.Errorf("%s is gone", dir)
		}
	}
	if err := sleep.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the process in it: %v", err)
	}
	if got := mustRead(t, filepath.Join(dirs[0], "cgroup.procs")); got != fmt.Sprintln(sleep.Process.Pid) {
		t.Errorf("the group has processes %q; want the one that was there", got)
	}
}

// In one hierarchy only: what up had made in the others goes again.
func TestForeignGroupInTheLastHierarchy(t *testing.T) {
	h := newHost(t)
	all := h.dirs(h.CgroupParent + "/ps_1")
	last := all[len(all)-1]
	h.mkdir(last)
	h.fails(rec("ps_1", "{}"), last, "up")
	if left := h.left("ps_1"); len(left) != 1 || left[0] != last {
		t.Errorf("left: %v; want only %s", left, last)
	}
}

// A group that the record names is used, and left.
func TestGivenGroup(t *testing.T) {
	h := newHost(t)
	path := h.root + "/given"
	in := strings.Replace(rec("ps_1", "{}"), `"linux":{`, `"linux":{"cgroupsPath":"`+path+`",`, 1)

	out := h.up(in) // there is none: it is made
	if !strings.Contains(out, `"cgroupsPath":"`+path+`"`) {
		t.Errorf("up wrote %s; want the path kept", out)
	}
	h.ok(out, "check")
	h.ok(out, "up") // said twice
	h.ok(out, "down")

	dirs := h.foreign(path)
	h.ok(in, "up")
	h.ok(in, "check")
	h.ok(in, "down")
	for _, dir := range dirs {
		if !isThere(dir) {
			t.Errorf("%s is gone", dir)
		}
	}

	freeze(t, dirs, true)
	h.fails(in, "frozen", "up")
	freeze(t, dirs, false)
	inside(t, dirs)
	h.fails(in, "has processes in it", "up")
}

func freeze(t *testing.T, dirs []string, on bool) {
	t.Helper()
	for _, dir := range dirs {
		if file := filepath.Join(dir, "freezer.state"); isThere(file) {
			mustWrite(t, file, map[bool]string{true: "FROZEN", false: "THAWED"}[on])
			return
		}
	}
	mustWrite(t, filepath.Join(dirs[0], "cgroup.freeze"), map[bool]string{true: "1", false: "0"}[on])
}

// inside starts a process of somebody else in a group.
func inside(t *testing.T, dirs []string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for _, dir := range dirs {
		if file := filepath.Join(dir, "cpuset.cpus"); isThere(file) && strings.TrimSpace(mustRead(t, file)) == "" {
			continue // nobody can enter it yet
		}
		mustWrite(t, filepath.Join(dir, "cgroup.procs"), fmt.Sprint(cmd.Process.Pid))
	}
	return cmd
}

// On v2 no controller goes through a group that has processes itself; they are
// left where they are. On v1 such a parent is no obstacle.
func TestParentWithProcesses(t *testing.T) {
	h := newHost(t)
	dirs := h.foreign(h.CgroupParent)
	sleep := inside(t, dirs)
	if len(dirs) == 1 {
		h.fails(rec("ps_1", "{}"), "SHOCKER_CGROUP", "up")
	} else {
		h.ok(h.ok(rec("ps_1", "{}"), "up"), "down")
	}
	if got := mustRead(t, filepath.Join(dirs[0], "cgroup.procs")); got != fmt.Sprintln(sleep.Process.Pid) {
		t.Errorf("the parent has processes %q; want the one that was there", got)
	}
}
