// Package peers runs what others wrote against an OCI runtime of others and
// against ours, side by side: the validation programs of OCI runtime-tools
// (scripts/conformance), and ordinary behaviours of containers through docker,
// podman and containerd (scripts/engines). Where the other runtime does right,
// ours has to.
//
//	SHOCKER_REFERENCE   the other's runtime (runc)
//	SHOCKER_CANDIDATE   ours (shocker-oci)
//	SHOCKER_SUITE=all   everything, not only the fast core
//	SHOCKER_TABLE       a file that is there, to which the rows of the tables are appended
package peers

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/testkit"
)

var (
	reference = cmp.Or(os.Getenv("SHOCKER_REFERENCE"), "runc")
	candidate = cmp.Or(os.Getenv("SHOCKER_CANDIDATE"), "shocker-oci")
	all       = os.Getenv("SHOCKER_SUITE") == "all"
)

// What is compared here waits more than it works, and has limits of time of its
// own, which are short on a machine that is emulated.
func TestMain(m *testing.M) {
	flag.Parse()
	parallel := "4"
	if testkit.Patience(1) > 1 {
		parallel = "2"
	}
	if err := flag.Set("test.parallel", parallel); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// on runs f on a host with both runtimes in PATH.
func on(t *testing.T, f func(t *testing.T, h *testkit.Host)) {
	t.Helper()
	options := testkit.Options{NoStore: true}
	if table := os.Getenv("SHOCKER_TABLE"); table != "" {
		options.Writable = []string{table}
	}
	testkit.Run(t, options, func(t *testing.T, h *testkit.Host) {
		if candidate == "shocker-oci" {
			h.Bin(t)
		}
		for _, r := range []string{reference, candidate} {
			if r == "crun" { // 1.8 refuses a hybrid tree whose v2 part has controllers
				if err := unix.Unmount("/sys/fs/cgroup/unified", unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
					t.Fatal(err)
				}
			}
		}
		f(t, h)
	})
}

// path is where a runtime's program is.
func path(t *testing.T, runtime string) string {
	t.Helper()
	p, err := exec.LookPath(runtime)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// tell appends a row to the table.
func tell(t *testing.T, cells ...string) {
	t.Helper()
	name := os.Getenv("SHOCKER_TABLE")
	if name == "" {
		return
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	if err == nil {
		_, err = fmt.Fprintln(f, strings.Join(cells, "\t"))
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Error(err)
	}
}

// leftovers is what a host has and had not before, when what goes by and by has
// gone.
func leftovers(t *testing.T, h *testkit.Host, before testkit.State) (left string) {
	t.Helper()
	end := time.Now().Add(testkit.Patience(5 * time.Second))
	for {
		left = more(before, h.Snapshot(t))
		if left == "" || time.Now().After(end) {
			return left
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// more lists what only the later state has.
func more(before, now testkit.State) string {
	var lines []string
	for line := range strings.Lines(testkit.Diff(before, now, "files", "subvolumes")) {
		if strings.HasPrefix(line, "+ ") {
			lines = append(lines, line)
		}
	}
	return strings.TrimSpace(strings.Join(lines, ""))
}

// sweep ends every process of the host but PID 1 and this one, and removes the
// mounts and cgroups that it had not before.
func sweep(t *testing.T, h *testkit.Host, before testkit.State) {
	t.Helper()
	testkit.Eventually(t, 10*time.Second, func() error {
		dirs, err := filepath.Glob("/proc/[0-9]*")
		if err != nil {
			return err
		}
		for _, dir := range dirs {
			pid, err := strconv.Atoi(filepath.Base(dir))
			if err != nil {
				return err
			}
			if pid != 1 && pid != os.Getpid() {
				if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
					return err
				}
			}
		}
		now := h.Snapshot(t)
		for _, m := range slices.Backward(now["mounts"]) {
			if _, point, _ := strings.Cut(m, " on "); !slices.Contains(before["mounts"], m) {
				if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
					return &os.PathError{Op: "unmount", Path: point, Err: err}
				}
			}
		}
		for _, c := range slices.Backward(now["cgroups"]) {
			if !slices.Contains(before["cgroups"], c) {
				if err := unix.Rmdir(c); err != nil && !errors.Is(err, unix.ENOENT) {
					return &os.PathError{Op: "rmdir", Path: c, Err: err}
				}
			}
		}
		if left := more(before, h.Snapshot(t)); left != "" {
			return errors.New(left)
		}
		return nil
	})
}
