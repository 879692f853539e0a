package group

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/cgroup/hierarchy"
	"shocker.sh/lib/testkit"
	"shocker.sh/lib/undo"
)

const root = "/sys/fs/cgroup"

var names atomic.Int32

func name() string { return fmt.Sprintf("group-test-%d-%d", os.Getpid(), names.Add(1)) }

// make makes the group of a config, with an undo at the end of the test.
func makeGroup(t *testing.T, cgroupsPath, id string) (*Group, *undo.Log) {
	t.Helper()
	testkit.Requires(t, "root")
	g, err := OfConfig(root, cgroupsPath, id)
	if err != nil {
		t.Fatal(err)
	}
	log := undo.Open(t.TempDir())
	if _, err := g.Make(log, true, Controllers{Like: []string{"memory", "pids"}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := log.Replay(""); err != nil {
			t.Error(err)
		}
		if missing, err := g.Missing(); err != nil || len(missing) < len(g.Hierarchies) {
			t.Errorf("after the undo %v of %v is missing: %v", missing, g.Dirs(), err)
		}
	})
	return g, log
}

// sleeper is a process that does nothing; the end of the test kills it.
func sleeper(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

func own(t *testing.T, h hierarchy.Hierarchy) string {
	t.Helper()
	path, err := hierarchy.Of(os.Getpid(), h)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestGroupOfAConfig(t *testing.T) {
	id := name()
	for _, test := range []struct {
		path     string
		absolute bool
		want     string
	}{
		{"/" + id + "/a/../b", true, "/" + id + "/b"},
		{"/../" + id + "-w", true, "/" + id + "-w"},
		{id + "-x/b", false, id + "-x/b"},
		{"../../" + id + "-y", false, id + "-y"},
		{id + ".slice:cri-containerd:v", false, id + ".slice:cri-containerd:v"},
		{"", false, id + "-z"},
	} {
		g, _ := makeGroup(t, test.path, id+"-z")
		for _, h := range g.Hierarchies {
			base := "/"
			if !test.absolute {
				if base = own(t, h); len(g.Hierarchies) == 1 {
					base = filepath.Dir(base) // v2
				}
			}
			want := filepath.Join(h.Mount, base, test.want)
			if _, err := os.Stat(filepath.Join(want, "cgroup.procs")); err != nil || g.In(h) != want {
				t.Errorf("the group of %q is %s; want %s: %v", test.path, g.In(h), want, err)
			}
		}
	}
	for _, path := range []string{"/", ".."} {
		if g, err := OfConfig(root, path, id); !errors.Is(err, ErrBadPath) {
			t.Errorf("the group of %q = %v, %v; want ErrBadPath", path, g, err)
		}
	}
}

func TestGivenGroupInUse(t *testing.T) {
	path := "/" + name()
	g, _ := makeGroup(t, path, "")
	log := undo.Open(t.TempDir())
	again := func() error {
		_, err := g.Make(log, true, Controllers{})
		return err
	}
	if err := again(); err != nil {
		t.Errorf("an empty group is not taken: %v", err)
	}
	if err := g.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := again(); !errors.Is(err, ErrFrozen) || !strings.Contains(err.Error(), "container's cgroup unexpectedly frozen") {
		t.Errorf("Make of a frozen group: %v", err)
	}
	if err := g.Thaw(); err != nil {
		t.Fatal(err)
	}
	if err := g.Join(sleeper(t).Process.Pid, Joining{}); err != nil {
		t.Fatal(err)
	}
	if err := again(); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "container's cgroup is not empty") {
		t.Errorf("Make of a group with a process: %v", err)
	}
	if entries, err := log.Entries(); err != nil || len(entries) > 0 {
		t.Errorf("the undo of a group that is somebody else's: %v, %v", entries, err)
	}
}

func TestSaveLoadRemove(t *testing.T) {
	g, log := makeGroup(t, name()+"/x", "")
	s, err := g.Save()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	load := func() *Group {
		t.Helper()
		var s Saved
		if err := json.Unmarshal(text, &s); err != nil {
			t.Fatal(err)
		}
		g, err := Load(s)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	loaded := load()
	if fmt.Sprint(loaded.Dirs()) != fmt.Sprint(g.Dirs()) {
		t.Errorf("Load = %v; want %v", loaded.Dirs(), g.Dirs())
	}
	cmd := sleeper(t)
	if err := loaded.Join(cmd.Process.Pid, Joining{}); err != nil {
		t.Fatal(err)
	}
	if err := loaded.Remove(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the process in the group outlived it")
	}
	// Another group at the same place is not that of before.
	if err := log.Replay(""); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Make(log, false, Controllers{}); err != nil {
		t.Fatal(err)
	}
	cmd = sleeper(t)
	if err := g.Join(cmd.Process.Pid, Joining{}); err != nil {
		t.Fatal(err)
	}
	loaded = load()
	populated, err1 := loaded.Populated()
	exists, err2 := loaded.Exists()
	procs, err3 := loaded.Procs()
	if populated || exists || len(procs) > 0 || errors.Join(err1, err2, err3) != nil {
		t.Errorf("a group that is gone: populated %v, exists %v, processes %v, %v", populated, exists, procs, errors.Join(err1, err2, err3))
	}
	for name, do := range map[string]func() error{
		"kill":   func() error { return loaded.Kill(t.Context()) },
		"signal": func() error { return loaded.Signal(t.Context(), unix.SIGKILL) },
		"remove": loaded.Remove,
	} {
		if err := do(); err != nil {
			t.Errorf("%s of a group that is gone: %v", name, err)
		}
	}
	for name, do := range map[string]func() error{
		"freeze": func() error { return loaded.Freeze(t.Context()) },
		"thaw":   loaded.Thaw,
		"join":   func() error { return loaded.Join(cmd.Process.Pid, Joining{}) },
	} {
		if err := do(); !errors.Is(err, ErrGone) {
			t.Errorf("%s of a group that is gone: %v; want ErrGone", name, err)
		}
	}
	if populated, err := g.Populated(); err != nil || !populated {
		t.Errorf("the group that took the place: populated %v, %v", populated, err)
	}
}

func TestJoin(t *testing.T) {
	g, _ := makeGroup(t, "/"+name(), "")
	for _, dir := range g.Dirs() {
		if err := os.Mkdir(filepath.Join(dir, "below"), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} { // v1 gives none
			if text, err := os.ReadFile(filepath.Join(dir, file)); err == nil && len(text) > 1 {
				if err := Write(filepath.Join(dir, "below"), file, strings.TrimSpace(string(text))); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	where := func(pid int) string {
		t.Helper()
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	pid := sleeper(t).Process.Pid
	if err := g.Join(pid, Joining{Below: map[string]string{"": "/below"}}); err != nil {
		t.Error(err)
	}
	if n := strings.Count(where(pid), ":"+g.Path+"/below\n"); n != len(g.Hierarchies) {
		t.Errorf("it is below in %d hierarchies of %d:\n%s", n, len(g.Hierarchies), where(pid))
	}
	if err := g.Join(pid, Joining{Below: map[string]string{"": "../../../nowhere"}}); err == nil {
		t.Error("it joined a group that is not there")
	}
	if err := g.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := g.Join(pid, Joining{}); !errors.Is(err, ErrFrozen) {
		t.Errorf("Join of a frozen group: %v; want ErrFrozen", err)
	}
	pid = sleeper(t).Process.Pid
	if err := g.Join(pid, Joining{Frozen: true}); err != nil {
		t.Error(err)
	}
	if err := g.Thaw(); err != nil {
		t.Error(err)
	}
	v2 := g.Hierarchies[0]
	if v2.Version != 2 {
		if door, err := g.Door(); door != nil || err != nil {
			t.Errorf("Door = %v, %v on v1", door, err)
		}
		return
	}
	door, err := g.Door()
	if err != nil || door == nil {
		t.Fatalf("Door = %v, %v", door, err)
	}
	door.Close()
	// The first process goes below, and hands controllers down: the group
	// itself takes no process any more.
	init := sleeper(t).Process.Pid
	for _, p := range []int{init, pid} {
		if err := g.Join(p, Joining{Below: map[string]string{"": "below"}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := Write(g.In(v2), "cgroup.subtree_control", "+memory"); err != nil {
		t.Fatal(err)
	}
	pid = sleeper(t).Process.Pid
	if err := g.Join(pid, Joining{}); !errors.Is(err, unix.EBUSY) {
		t.Errorf("Join of a group that takes none: %v; want EBUSY", err)
	}
	if err := g.Join(pid, Joining{Init: os.Getpid()}); !errors.Is(err, unix.EBUSY) {
		t.Errorf("Join after a process that is elsewhere: %v; want EBUSY", err)
	}
	s, err := g.Save() // as exec finds it
	if err == nil {
		g, err = Load(s)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Join(pid, Joining{Init: init}); err != nil || where(pid) != where(init) {
		t.Errorf("Join after the first process: %v, %s; want %s", err, where(pid), where(init))
	}
}

// A signal comes once, however many hierarchies there are, to each.
func TestSignal(t *testing.T) {
	g, _ := makeGroup(t, "/"+name(), "")
	const program = `trap 'echo got' USR1; echo up; while :; do read x; done`
	var outs []*bufio.Reader
	for range 2 {
		cmd := exec.Command("sh", "-c", program)
		stdin, err1 := cmd.StdinPipe()
		stdout, err2 := cmd.StdoutPipe()
		if err := errors.Join(err1, err2, cmd.Start()); err != nil {
			t.Fatal(err)
		}
		out := bufio.NewReader(stdout)
		if line, err := out.ReadString('\n'); line != "up\n" {
			t.Fatalf("%q, %v", line, err)
		}
		if err := g.Join(cmd.Process.Pid, Joining{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			stdin.Close()
			if err := errors.Join(cmd.Process.Kill(), cmd.Wait()); err == nil {
				t.Error("it ended by itself")
			}
		})
		outs = append(outs, out)
	}
	for range 3 {
		if err := g.Signal(t.Context(), unix.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		for _, out := range outs {
			if line, err := out.ReadString('\n'); line != "got\n" {
				t.Errorf("%q, %v; want the signal", line, err)
			}
			if n := out.Buffered(); n > 0 {
				t.Errorf("%d bytes more than one signal says", n)
			}
		}
	}
	if frozen, err := g.Frozen(); frozen || err != nil {
		t.Errorf("after Signal frozen is %v, %v", frozen, err)
	}
}

func TestChown(t *testing.T) {
	g, _ := makeGroup(t, "/"+name(), "")
	if err := g.Chown(4711); err != nil {
		t.Fatal(err)
	}
	for _, h := range g.Hierarchies {
		for file, given := range map[string]bool{".": true, "cgroup.procs": true, "cgroup.subtree_control": true, "cgroup.freeze": false, "cgroup.clone_children": false} {
			var st unix.Stat_t
			if err := unix.Stat(filepath.Join(g.In(h), file), &st); err != nil {
				continue // of the other version
			}
			if want := given && h.Version == 2; (st.Uid == 4711) != want {
				t.Errorf("%s/%s belongs to %d", g.In(h), file, st.Uid)
			}
		}
	}
}
