package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// hook writes what it sees to a file: the state, its environment, the pid
// namespace, whether the container's proc is there, and who it is.
func hook(dir, name string) []specs.Hook {
	script := `{ cat; echo; readlink /proc/self/ns/pid; readlink /proc/self/ns/mnt; id -u; pwd; ls -d /bundle-root-only 2>&1; env; } > "$0/` + name + `"`
	return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", script, dir}, Env: []string{"ONLY=this", "PATH=/bin:/usr/bin"}}}
}

// All six, in their order, each in the namespaces that are right for it, with
// the state that belongs to the moment.
func TestHooks(t *testing.T) {
	root := busyboxRoot(t)
	if err := os.Mkdir(filepath.Join(root, "bundle-root-only"), 0o755); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(filepath.Dir(root), "out")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, userns := range []bool{true, false} {
		spec := config(root, "true")
		if !userns {
			withoutUser(spec)
		}
		spec.Annotations = map[string]string{"a": "b"}
		spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/out", Source: dir, Options: []string{"bind"}})
		spec.Hooks = &specs.Hooks{
			Prestart: hook(dir, "prestart"), CreateRuntime: hook(dir, "createRuntime"), CreateContainer: hook(dir, "createContainer"),
			StartContainer: hook("/out", "startContainer"), Poststart: hook(dir, "poststart"), Poststop: hook(dir, "poststop"),
		}
		o, err := run(t, spec, nil)
		if err != nil || o.status != 0 {
			t.Fatalf("status %d, %v", o.status, err)
		}
		pidns, err := os.Readlink("/proc/self/ns/pid")
		if err != nil {
			t.Fatal(err)
		}
		mntns, err := os.Readlink("/proc/self/ns/mnt")
		if err != nil {
			t.Fatal(err)
		}
		for _, test := range []struct {
			name, status  string
			inside, image bool
		}{
			{"prestart", "creating", false, false},
			{"createRuntime", "creating", false, false},
			{"createContainer", "creating", true, false},
			{"startContainer", "created", true, true},
			{"poststart", "running", false, false},
		} {
			data, err := os.ReadFile(filepath.Join(dir, test.name))
			if err != nil {
				t.Errorf("%s: %v", test.name, err)
				continue
			}
			lines := strings.Split(strings.TrimSpace(string(data)), "\n")
			var state specs.State
			if err := json.Unmarshal([]byte(lines[0]), &state); err != nil {
				t.Errorf("%s: state %q: %v", test.name, lines[0], err)
			}
			if string(state.Status) != test.status || state.ID != "test" || state.Annotations["a"] != "b" || (state.Pid == 1) != test.inside || state.Pid == 0 {
				t.Errorf("userns %v, %s: state %+v; want status %s", userns, test.name, state, test.status)
			}
			if inside := lines[1] != pidns && lines[2] != mntns; inside != test.inside {
				t.Errorf("userns %v, %s: namespaces %s %s, ours are %s %s", userns, test.name, lines[1], lines[2], pidns, mntns)
			}
			if lines[3] != "0" {
				t.Errorf("%s: runs as %s", test.name, lines[3])
			}
			if image := lines[5] == "/bundle-root-only"; image != test.image {
				t.Errorf("userns %v, %s: %q; want it to see the image: %v", userns, test.name, lines[5], test.image)
			}
			env := strings.Join(lines[6:], "\n")
			if !strings.Contains(env, "ONLY=this") || strings.Contains(env, "HOME=") {
				t.Errorf("%s: environment %q; want its own only", test.name, env)
			}
		}
		for i, name := range []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart"} {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Error(i, err)
			}
		}
	}
}

func TestStopped(t *testing.T) {
	root := busyboxRoot(t)
	dir := t.TempDir()
	spec := config(root, "true")
	spec.Hooks = &specs.Hooks{Poststop: append([]specs.Hook{{Path: "/bin/false"}}, hook(dir, "poststop")...)}
	c, err := Create(context.Background(), spec, Options{ID: "test", Bundle: dir, MapRoot: true, Stdio: [3]*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := c.Stopped(context.Background()); err == nil {
		t.Error("a hook that fails is not told")
	}
	data, err := os.ReadFile(filepath.Join(dir, "poststop"))
	if err != nil || !strings.Contains(string(data), `"status":"stopped"`) {
		t.Errorf("the second hook got %q, %v", data, err)
	}
}

// Another process than the one that has created the container runs the hooks of
// the start, with its HOME filled in before.
func TestHooksOfHeld(t *testing.T) {
	root := busyboxRoot(t)
	dir := t.TempDir()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	spec := config(root, "sh", "-c", "cat /made; echo $HOME")
	spec.Process.Env = []string{"PATH=/bin"}
	spec.Hooks = &specs.Hooks{
		StartContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo by the hook > /made"}, Env: []string{"PATH=/bin"}}},
		Poststart:      hook(dir, "poststart"),
	}
	o := Options{ID: "test", Bundle: dir, HoldIn: t.TempDir(), MapRoot: true, Stdio: [3]*os.File{null, w, w}}
	c, err := Create(context.Background(), spec, o)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	pidfd, err := c.Identity.Open()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Reopen(spec, o, c.Identity, pidfd)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil || string(out) != "by the hook\n/\n" {
		t.Errorf("%q, %v", out, err)
	}
	if status, err := c.Wait(); err != nil || status != 0 {
		t.Errorf("status %d, %v", status, err)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "poststart")); err != nil || !strings.Contains(string(data), `"status":"running"`) {
		t.Errorf("poststart got %q, %v", data, err)
	}
}

// A hook that fails or hangs ends the container, and its words are told.
func TestHooksFail(t *testing.T) {
	root := busyboxRoot(t)
	fails := []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo it rains >&2; exit 3"}}}
	for name, hooks := range map[string]*specs.Hooks{
		"prestart":        {Prestart: fails},
		"createRuntime":   {CreateRuntime: fails},
		"createContainer": {CreateContainer: fails},
		"startContainer":  {StartContainer: fails},
		"poststart":       {Poststart: fails},
	} {
		before := children(t)
		spec := config(root, "sleep", "1000")
		spec.Hooks = hooks
		if _, err := run(t, spec, nil); err == nil || !strings.Contains(err.Error(), "it rains") || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "exit status 3") {
			t.Errorf("%s: %v; want its words and its status", name, err)
		}
		if after := children(t); after != before {
			t.Errorf("%s: processes are left: %s", name, after)
		}
	}
	one := 1
	hangs := []specs.Hook{{Path: "/bin/sleep", Args: []string{"sleep", "100"}, Timeout: &one}}
	for name, hooks := range map[string]*specs.Hooks{"createRuntime": {CreateRuntime: hangs}, "startContainer": {StartContainer: hangs}} {
		before := children(t)
		spec := config(root, "true")
		spec.Hooks = hooks
		if _, err := run(t, spec, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s that hangs: %v; want %v", name, err, context.DeadlineExceeded)
		}
		if after := children(t); after != before {
			t.Errorf("%s that hangs: processes are left: %s", name, after)
		}
	}
	spec := config(root, "true")
	spec.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/no/such"}}}
	if _, err := run(t, spec, nil); err == nil || !strings.Contains(err.Error(), "/no/such") || strings.Contains(err.Error(), "no such file") {
		t.Errorf("a hook that does not exist: %v; want an error that names it, in words of ours", err)
	}
	zero := 0
	for _, h := range []specs.Hook{{Path: "sh"}, {Path: "/bin/sh", Timeout: &zero}} {
		if err := checkHooks(&specs.Hooks{Poststop: []specs.Hook{h}}); !errors.Is(err, ErrInvalid) {
			t.Errorf("hook %+v: %v; want %v", h, err, ErrInvalid)
		}
	}
}

// children are the processes that are ours, those that wait to be reaped
// included.
func children(t *testing.T) string {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, task := range tasks {
		data, err := os.ReadFile(task)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		all = append(all, strings.Fields(string(data))...)
	}
	return fmt.Sprint(all)
}

// TestFirstBytes: a hook that says much costs no memory.
func TestFirstBytes(t *testing.T) {
	var b firstBytes
	for range 3 {
		if n, err := b.Write(make([]byte, maxHookOutput-1)); n != maxHookOutput-1 || err != nil {
			t.Errorf("Write = %d, %v", n, err)
		}
	}
	if len(b) != maxHookOutput {
		t.Errorf("%d bytes are kept; want %d", len(b), maxHookOutput)
	}
}
