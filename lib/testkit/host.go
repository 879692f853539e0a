package testkit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Host is the machine that a test has for itself. Every process in it belongs
// to the test.
type Host struct {
	Dir        string // of the test, on the machine's own file system
	Store      string // root of an empty btrfs: SHOCKER_ROOT
	RunDir     string // does not exist yet: SHOCKER_RUN
	CgroupRoot string // file systems with the test's group as their root
	Outside    bool   // there is a way to the outside

	bin      func() (string, error)
	registry func() (string, error)
	start    State
}

// commandLimit ends a command that hangs.
const commandLimit = 5 * time.Minute

func newHost(c config) (*Host, error) {
	h := &Host{
		Dir:        c.Dir,
		Store:      filepath.Join(c.Dir, "store"),
		RunDir:     "/run/shocker",
		CgroupRoot: cgroupRoot,
		Outside:    c.Outside,
	}
	h.bin = sync.OnceValues(binaries)
	h.registry = sync.OnceValues(h.startRegistry)
	for name, value := range map[string]string{
		"SHOCKER_ROOT": h.Store,
		"SHOCKER_RUN":  h.RunDir,
		"TMPDIR":       filepath.Join(c.Dir, "tmp"),
		"HOME":         filepath.Join(c.Dir, "home"), // no credentials, no configuration
	} {
		if err := os.Setenv(name, value); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{"SHOCKER_CGROUP", "SHOCKER_SUBNET", "SHOCKER_BRIDGE", "SHOCKER_PATH", "SHOCKER_STORE_SIZE", "SHOCKER_CPU_SHARE", "SHOCKER_MEM_LIMIT", stageEnv} {
		if err := os.Unsetenv(name); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(os.Getenv("HOME"), 0o700); err != nil {
		return nil, err
	}
	start, err := h.snapshot()
	h.start = start
	return h, err
}

// Bin is the directory of the built programs. From the first call on it
// stands first in PATH; with SHOCKER_FORM=parts, the standalone parts stand
// before the dispatchers. The programs are those in SHOCKER_BIN, or were built
// before the first host.
func (h *Host) Bin(t testing.TB) string {
	t.Helper()
	dir, err := h.bin()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Result is what a command left.
type Result struct {
	Stdout, Stderr string
	Code           int // exit status, 128+n after signal n
}

// Shocker runs shocker with these arguments and an empty standard input.
func (h *Host) Shocker(t testing.TB, args ...string) Result {
	t.Helper()
	h.Bin(t)
	return h.Command(t, "shocker", args...)
}

// Must is Shocker for a command that has to succeed; it returns its output.
func (h *Host) Must(t testing.TB, args ...string) string {
	t.Helper()
	r := h.Shocker(t, args...)
	if r.Code != 0 {
		t.Fatalf("shocker %q = %d; want 0\nstdout: %s\nstderr: %s", args, r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// Sh runs a script with the built programs at hand, under `sh -eu`.
func (h *Host) Sh(t testing.TB, script string) Result {
	t.Helper()
	h.Bin(t)
	return h.Command(t, "sh", "-euc", script)
}

// Command runs any program to its end. A background process that keeps its
// output open does not hold it up for long.
func (h *Host) Command(t testing.TB, name string, args ...string) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandLimit)
	defer cancel()
	var out, talk bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &talk
	cmd.WaitDelay = Patience(time.Second)
	err := cmd.Run()
	r := Result{Stdout: out.String(), Stderr: talk.String()}
	if cmd.ProcessState == nil {
		t.Fatalf("run %s: %v", name, err)
	}
	if ctx.Err() != nil {
		t.Fatalf("%s %q did not end within %v\nstdout: %s\nstderr: %s", name, args, commandLimit, r.Stdout, r.Stderr)
	}
	r.Code = cmd.ProcessState.ExitCode()
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		r.Code = 128 + int(ws.Signal())
	}
	return r
}

// Eventually waits until f returns nil, for what the kernel does by and by.
func Eventually(t testing.TB, limit time.Duration, f func() error) {
	t.Helper()
	if err := eventually(limit, f); err != nil {
		t.Fatalf("still after %v: %v", limit, err)
	}
}

func eventually(limit time.Duration, f func() error) error {
	end := time.Now().Add(Patience(limit))
	for {
		err := f()
		if err == nil || time.Now().After(end) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// binaries finds the programs under test, and sets PATH.
func binaries() (string, error) {
	dir := os.Getenv("SHOCKER_BIN")
	path := dir + ":" + os.Getenv("PATH") + ":/usr/sbin:/sbin"
	switch form := os.Getenv("SHOCKER_FORM"); form {
	case "":
	case "parts":
		path = filepath.Join(dir, "parts") + ":" + path
	default:
		return "", fmt.Errorf("SHOCKER_FORM is %q; it can be empty or parts", form)
	}
	return dir, os.Setenv("PATH", path)
}

// built makes the programs under test, unless they are in SHOCKER_BIN already:
// on the machine, since what a host builds goes with it.
var built = sync.OnceValue(func() error {
	if os.Getenv("SHOCKER_BIN") != "" {
		return nil
	}
	dir, err := build()
	if err != nil {
		return fmt.Errorf("build the programs under test: %w", err)
	}
	return os.Setenv("SHOCKER_BIN", dir)
})

// build makes the programs in bin of the checkout, one process at a time.
func build() (string, error) {
	work, err := exec.Command("go", "env", "GOWORK").Output()
	if err != nil {
		return "", fmt.Errorf("go env: %w", err)
	}
	root := filepath.Dir(string(bytes.TrimSpace(work)))
	script, err := os.Open(filepath.Join(root, "scripts", "build"))
	if err != nil {
		return "", err
	}
	defer script.Close()
	if err := syscall.Flock(int(script.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	dir := filepath.Join(root, "bin")
	out, err := exec.Command(script.Name(), dir).CombinedOutput()
	if err != nil {
		return "", errors.Join(err, errors.New(string(out)))
	}
	return dir, nil
}
