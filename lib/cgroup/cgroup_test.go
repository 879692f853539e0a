package cgroup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/cgroup/group"
	"shocker.sh/lib/testkit"
	"shocker.sh/lib/undo"
)

const root = "/sys/fs/cgroup"

func TestParseUnit(t *testing.T) {
	for _, test := range []struct{ path, name, group string }{
		{"", "shocker-ps_1.scope", "/system.slice/shocker-ps_1.scope"},
		{"system.slice:docker:abc", "docker-abc.scope", "/system.slice/docker-abc.scope"},
		{":libpod:abc", "libpod-abc.scope", "/system.slice/libpod-abc.scope"},
		{"a-b-c.slice:x:y", "x-y.scope", "/a.slice/a-b.slice/a-b-c.slice/x-y.scope"},
		{"-.slice:x:y", "x-y.scope", "/x-y.scope"},
		{"user.slice::y", "-y.scope", "/user.slice/-y.scope"},
		{"a.slice:b", "", ""},
		{"/a/b", "", ""},
		{"a.slice:b:", "", ""},
		{"a.slice:b:c:d", "", ""},
		{"a:b:c", "", ""},
		{".slice:b:c", "", ""},
		{"a-.slice:b:c", "", ""},
		{"a/b.slice:b:c", "", ""},
		{"a.slice:b:../c", "", ""},
		{"a.slice:b:c.slice", "", ""},
		{"a.slice:b:" + strings.Repeat("c", 300), "", ""},
	} {
		u, err := ParseUnit(test.path, "ps_1")
		if test.name == "" {
			if !errors.Is(err, ErrUnit) {
				t.Errorf("ParseUnit(%q) = %v, %v; want ErrUnit", test.path, u, err)
			}
			continue
		}
		path, perr := u.Path()
		if err := errors.Join(err, perr); err != nil || u.Name != test.name || path != test.group {
			t.Errorf("ParseUnit(%q) = %v, %v, in %s; want %s in %s", test.path, u, err, path, test.name, test.group)
		}
	}
}

func TestAnnotated(t *testing.T) {
	var u Unit
	if err := u.Annotated(map[string]string{"org.systemd.property.KillSignal": "int32 2", "x": "y"}); err != nil || len(u.Properties) != 1 ||
		u.Properties["KillSignal"] != "int32 2" {
		t.Errorf("Annotated: %v, %v", u, err)
	}
	if err := u.Annotated(map[string]string{"org.systemd.property.kill signal": "1"}); !errors.Is(err, ErrUnit) {
		t.Errorf("Annotated with a bad name: %v", err)
	}
}

// fake is a manager that makes groups as systemd does, and remembers.
type fake struct {
	dirs []string
	said []string
	fail string // the call that fails
}

func (f *fake) say(what string) error {
	f.said = append(f.said, what)
	if what == f.fail {
		return errFake
	}
	return nil
}

var errFake = errors.New("the manager does not want to")

func (f *fake) Start(_ context.Context, u Unit, pid int) error {
	for _, dir := range f.dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := group.Write(dir, "cgroup.procs", fmt.Sprint(pid)); err != nil {
			return err
		}
	}
	return f.say("start " + u.Name)
}

func (f *fake) Set(_ context.Context, u Unit, _ int, _ *specs.LinuxResources) error {
	return f.say("set " + u.Name)
}

func (f *fake) Stop(_ context.Context, u Unit) error { return f.say("stop " + u.Name) }

var count atomic.Int32

// create makes a group with a process; m is nil or a manager.
func create(t *testing.T, m *fake, resources string) (*Cgroup, *exec.Cmd, *undo.Log, error) {
	t.Helper()
	testkit.Requires(t, "root")
	name := fmt.Sprintf("cgroup-test-%d-%d", os.Getpid(), count.Add(1))
	config := Config{Root: root, CgroupsPath: "/" + name, ID: "x"}
	if m != nil {
		config.Manager, config.CgroupsPath = m, "-.slice:"+name+":x"
	}
	c, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	if m != nil { // which knows some of the hierarchies
		m.dirs = c.Dirs()[:1]
	}
	log := undo.Open(t.TempDir())
	if err := c.Make(t.Context(), log, parse(t, resources)); err != nil {
		return c, nil, log, err
	}
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Release(); err != nil {
			t.Error(err)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if err := log.Replay(""); err != nil {
			t.Error(err)
		}
		if missing, err := c.Missing(); err != nil || len(missing) != len(c.Hierarchies) {
			t.Errorf("missing are %v of %v: %v", missing, c.Dirs(), err)
		}
	})
	return c, cmd, log, errors.Join(c.Join(cmd.Process.Pid, group.Joining{}), c.Release())
}

func parse(t *testing.T, text string) *specs.LinuxResources {
	t.Helper()
	var r *specs.LinuxResources
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func pidsMax(t *testing.T, c *Cgroup) string {
	t.Helper()
	h, _ := c.Find("pids")
	text, err := group.Read(c.In(h), "pids.max")
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestLife(t *testing.T) {
	for name, m := range map[string]*fake{"ours": nil, "a manager's": {}} {
		t.Run(name, func(t *testing.T) {
			c, cmd, _, err := create(t, m, `{"pids":{"limit":5}}`)
			if err != nil {
				t.Fatal(err)
			}
			if pids, err := c.Procs(); err != nil || fmt.Sprint(pids) != fmt.Sprintf("[%d]", cmd.Process.Pid) {
				t.Errorf("Procs = %v, %v; want %d alone", pids, err, cmd.Process.Pid)
			}
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", cmd.Process.Pid))
			if n := strings.Count(string(text), ":"+c.Path+"\n"); err != nil || n != len(c.Hierarchies) {
				t.Errorf("it is in %d of %d hierarchies: %s", n, len(c.Hierarchies), text)
			}
			s, err := c.Save()
			if err != nil {
				t.Fatal(err)
			}
			data, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			var saved Saved
			if err := json.Unmarshal(data, &saved); err != nil {
				t.Fatal(err)
			}
			later, err := Load(saved, func() Manager { return m })
			if err != nil {
				t.Fatal(err)
			}
			if err := later.Update(t.Context(), parse(t, `{"pids":{"limit":6}}`)); err != nil || pidsMax(t, c) != "6" {
				t.Errorf("Update: %v; the limit is %s", err, pidsMax(t, c))
			}
			if err := errors.Join(later.Kill(t.Context()), later.Stop(t.Context()), later.Remove()); err != nil {
				t.Error(err)
			}
			if m == nil {
				return
			}
			unit := strings.TrimPrefix(c.Path, "/")
			want := fmt.Sprintf("[start %[1]s set %[1]s set %[1]s stop %[1]s]", unit)
			if got := fmt.Sprint(m.said); got != want {
				t.Errorf("the manager was told %s; want %s", got, want)
			}
		})
	}
}

// Whatever fails, nothing is left, and an update leaves what was.
func TestFailures(t *testing.T) {
	if c, _, log, err := create(t, nil, `{"pids":{"limit":90000000}}`); err == nil {
		t.Error("a limit beyond all was taken")
	} else if entries, eerr := log.Entries(); eerr != nil || len(entries) > 0 {
		t.Errorf("after %v the undo of %s is %v, %v", err, c.Path, entries, eerr)
	}
	for _, fail := range []string{"start", "set"} {
		m := &fake{}
		m.fail = fmt.Sprintf("%s cgroup-test-%d-%d-x.scope", fail, os.Getpid(), count.Load()+1)
		c, _, log, err := create(t, m, `{"pids":{"limit":5}}`)
		if !errors.Is(err, errFake) {
			t.Errorf("Make with a manager that fails to %s: %v", fail, err)
			continue
		}
		entries, err := log.Entries()
		if missing, merr := c.Missing(); errors.Join(err, merr) != nil || len(entries) > 0 || len(missing) != len(c.Hierarchies) {
			t.Errorf("after a failed %s: the undo is %v, missing are %v: %v", fail, entries, missing, errors.Join(err, merr))
		}
	}
	if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); !errors.Is(err, unix.ECHILD) {
		t.Errorf("a process is left: %d, %v", pid, err)
	}
	m := &fake{}
	c, _, _, err := create(t, m, `{"pids":{"limit":5}}`)
	if err != nil {
		t.Fatal(err)
	}
	m.fail = "set " + filepath.Base(c.Path)
	if err := c.Update(t.Context(), parse(t, `{"pids":{"limit":6}}`)); !errors.Is(err, errFake) || pidsMax(t, c) != "5" {
		t.Errorf("an update that the manager refuses: %v; the limit is %s", err, pidsMax(t, c))
	}
	if frozen, err := c.Frozen(); frozen || err != nil {
		t.Errorf("and then frozen is %v, %v", frozen, err)
	}
}
