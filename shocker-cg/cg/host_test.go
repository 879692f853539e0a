package cg

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/applet"
	"shocker.sh/lib/cgroup/hierarchy"
	"shocker.sh/lib/stage"
)

// The test binary is also shocker-cg, and a program to be run in a group.
func TestMain(m *testing.M) {
	switch os.Getenv("CG_TEST_AS") {
	case "restless shocker-cg":
		go wantThreads()
		fallthrough
	case "shocker-cg":
		os.Args[0] = "shocker-cg"
		applet.Main(Applet)
	case "eater":
		eat()
	}
	os.Exit(m.Run())
}

// wantThreads has the runtime make one thread after the other, for as long as
// the command before the program lives.
func wantThreads() {
	for range 60 {
		go func() {
			for { // the scheduler takes it for computing
				millisecond := unix.Timespec{Nsec: 1e6}
				unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&millisecond)), 0, 0)
				runtime.Gosched()
			}
		}()
		time.Sleep(time.Millisecond)
	}
}

// eat uses 200 MB of memory, if it is let.
func eat() {
	const size = 200e6
	block := make([]byte, size)
	for i := 0; i < size; i += 4096 {
		block[i] = 1
	}
	fmt.Println("ate", len(block))
	os.Exit(0)
}

var hosts atomic.Int32

// host is a place for the groups of one test: a parent of their own in the
// hierarchies of this machine. At the end nothing may be left of it.
type host struct {
	stage.Host
	t    *testing.T
	root string // parent of the parent: ours too
}

func newHost(t *testing.T) *host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	root := fmt.Sprintf("/cg-test-%d-%d", os.Getpid(), hosts.Add(1))
	h := &host{stage.Host{
		Store: t.TempDir(), Run: t.TempDir(), CgroupRoot: "/sys/fs/cgroup", CgroupParent: root + "/deep",
	}, t, root}
	t.Cleanup(func() {
		entries, err := os.ReadDir(h.Run) // a tmpfs by now
		for _, e := range entries {
			err = errors.Join(err, h.RemoveRun(e.Name()))
		}
		if err := errors.Join(err, h.UnmountRun()); err != nil {
			t.Error(err)
		}
		for _, dir := range h.dirs(root) {
			if _, err := os.Lstat(dir); err == nil {
				t.Errorf("%s is left", dir)
				removeAll(t, dir)
			}
		}
	})
	return h
}

// dirs is a cgroup path in every hierarchy.
func (h *host) dirs(path string) []string {
	h.t.Helper()
	found, err := hierarchy.Find(h.CgroupRoot)
	if err != nil {
		h.t.Fatal(err)
	}
	var dirs []string
	for _, f := range found {
		dirs = append(dirs, filepath.Join(f.Mount, path))
	}
	return dirs
}

// file reads a file of a container's group. It is looked for by its v1 name or
// by that of v2, whichever there is.
func (h *host) file(id, v1, v2 string) string {
	h.t.Helper()
	for _, dir := range h.dirs(filepath.Join(h.CgroupParent, id)) {
		for _, name := range []string{v1, v2} {
			if data, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
				return strings.TrimSpace(string(data))
			}
		}
	}
	h.t.Fatalf("%s has neither %s nor %s", id, v1, v2)
	return ""
}

// left lists what there is of a container's group.
func (h *host) left(id string) (left []string) {
	for _, dir := range h.dirs(filepath.Join(h.CgroupParent, id)) {
		if _, err := os.Lstat(dir); err == nil {
			left = append(left, dir)
		}
	}
	return left
}

// foreign makes a group, and its parents if need be, as somebody else would.
func (h *host) foreign(path string) []string {
	h.t.Helper()
	dirs := h.dirs(path)
	for _, dir := range dirs {
		h.mkdir(dir)
	}
	return dirs
}

// mkdir makes a cgroup with its parents; the end of the test removes them.
func (h *host) mkdir(dir string) {
	h.t.Helper()
	if isThere(dir) {
		return
	}
	h.mkdir(filepath.Dir(dir))
	if err := os.Mkdir(dir, 0o755); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if err := unix.Rmdir(dir); err != nil {
			h.t.Errorf("remove %s: %v", dir, err)
		}
	})
}

func removeAll(t *testing.T, dir string) {
	t.Helper()
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			removeAll(t, filepath.Join(dir, e.Name()))
		}
	}
	if err := unix.Rmdir(dir); err != nil && !os.IsNotExist(err) {
		t.Errorf("remove %s: %v", dir, err)
	}
}

// command is shocker-cg as a process of its own.
func (h *host) command(stdin string, args ...string) *exec.Cmd {
	h.t.Helper()
	self, err := os.Executable()
	if err != nil {
		h.t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), "CG_TEST_AS=shocker-cg",
		"SHOCKER_ROOT="+h.Store, "SHOCKER_RUN="+h.Run, "SHOCKER_CGROUP="+h.CgroupParent)
	cmd.Stdin = strings.NewReader(stdin)
	return cmd
}

// run runs shocker-cg and returns its output and exit status.
func (h *host) run(stdin string, args ...string) (stdout, stderr string, status int) {
	h.t.Helper()
	cmd := h.command(stdin, args...)
	var out, talk bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &talk
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		h.t.Fatal(err)
	}
	return out.String(), talk.String(), cmd.ProcessState.ExitCode()
}

// ok is run for what has to succeed, quietly.
func (h *host) ok(stdin string, args ...string) (stdout string) {
	h.t.Helper()
	stdout, stderr, status := h.run(stdin, args...)
	if status != 0 || stderr != "" {
		h.t.Fatalf("shocker-cg %v: status %d: %s", args, status, stderr)
	}
	return stdout
}

// fails is run for what has to fail, with these words on stderr.
func (h *host) fails(stdin string, want string, args ...string) {
	h.t.Helper()
	stdout, stderr, status := h.run(stdin, args...)
	if status == 0 || stdout != "" || !strings.Contains(stderr, want) || strings.Count(stderr, "\n") != 1 {
		h.t.Errorf("shocker-cg %v: status %d, stdout %q, stderr %q; want one line with %q", args, status, stdout, stderr, want)
	}
}

// up makes the group of a record and sees to its end.
func (h *host) up(rec string, args ...string) string {
	h.t.Helper()
	out := h.ok(rec, append([]string{"up"}, args...)...)
	h.t.Cleanup(func() { h.ok(out, "down") })
	return out
}

// record is one with an id and linux.resources.
func rec(id, resources string) string {
	return fmt.Sprintf(`{"ociVersion":"1.0.2","annotations":{"sh.shocker.id":"%s"},"linux":{"resources":%s}}`+"\n", id, resources)
}

// enter starts a program in a container's group. The end of the test kills it.
func (h *host) enter(id string, env string, args ...string) (cmd *exec.Cmd, stdout *os.File) {
	h.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		h.t.Fatal(err)
	}
	defer w.Close()
	h.t.Cleanup(func() { r.Close() })
	cmd = h.command("", append([]string{"exec", id, "--"}, args...)...)
	if env != "" { // exec keeps it
		cmd.Args = append([]string{cmd.Args[0], "exec", id, "--", "env", env}, args...)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, w, w
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	return cmd, r
}

func isThere(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func mustWrite(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(text)
		f.Close()
	}
	if err != nil {
		t.Fatalf("write %q to %s: %v", text, path, err)
	}
}

func mustRead(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func mkdirAll(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}
