package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/testkit"
)

// killed starts a command in a process group of its own, waits for the
// condition and kills the group with -9.
func killed(t *testing.T, when func() bool, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	deadline := time.Now().Add(testkit.Patience(30 * time.Second))
	for !when() {
		select {
		case <-ended:
			t.Fatalf("%s %q ended before it could be killed", name, args)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s %q never came to where it is killed", name, args)
		}
	}
	if err := unix.Kill(-cmd.Process.Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-ended
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// TestKilledAfterEachStage stops the composed run behind each stage, by a
// station of another's that waits there, and kills it: gc leaves nothing.
func TestKilledAfterEachStage(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		before := warmUp(t, h, image)
		shocker := filepath.Join(h.Bin(t), "shocker")
		for _, next := range []string{"shocker-subvol", "shocker-net", "shocker-cg", "shocker-run"} {
			dir := filepath.Join(h.Dir, "parts-"+next)
			here := filepath.Join(h.Dir, "here-"+next)
			write(t, filepath.Join(dir, next), "#!/bin/sh\n[ \"$1\" = down ] && exit\ntouch "+here+"\nexec sleep 1000\n")
			t.Setenv("SHOCKER_PATH", dir)
			killed(t, func() bool { return exists(here) }, shocker, "run", image, "true")
			h.Must(t, "gc")
			if next == "shocker-run" {
				// To the composer the foreign last stage had started.
				h.Must(t, "gc", "--created")
				ok(t, h.Sh(t, `c=$(shocker ps -q); [ -z "$c" ] || shocker rm -f $c`))
			}
			if left := ids(t, h); len(left) != 0 {
				t.Errorf("killed before %s: gc left %q", next, left)
			}
			h.Settle(t, before, "files", "links", "addresses", "nft", "mounts")
			t.Setenv("SHOCKER_PATH", "")
		}
		removeAll(t, h, h.Start(), "files")
	})
}

// TestKilledAtEachEffect kills the composed run as soon as its n-th undo entry
// is written, which is before that effect or in its midst.
func TestKilledAtEachEffect(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		before := warmUp(t, h, image)
		shocker := filepath.Join(h.Bin(t), "shocker")
		entries := 0
		for n := 1; n <= 8; n++ {
			pattern := filepath.Join(h.RunDir, "ps_*", "undo", fmt.Sprintf("%06d-*", n))
			killed(t, func() bool {
				found, _ := filepath.Glob(pattern)
				return len(found) > 0
			}, shocker, "run", image, "sleep", "1000")
			entries = n
			ok(t, h.Sh(t, `for c in $(shocker ps -q); do shocker kill $c 2>/dev/null || true; done`))
			testkit.Eventually(t, testkit.Patience(10*time.Second), func() error {
				h.Must(t, "gc")
				// One that had been started has exited now, and stays.
				ok(t, h.Sh(t, `c=$(shocker ps -l | awk -F '\t' 'NR > 1 && $3 ~ /^exited/ { print $1 }'); [ -z "$c" ] || shocker rm $c`))
				if left := ids(t, h); len(left) != 0 {
					return fmt.Errorf("killed at entry %d: gc left %q", n, left)
				}
				return nil
			})
			h.Settle(t, before, "files", "links", "addresses", "nft", "mounts")
		}
		if entries != 8 {
			t.Errorf("a run has %d undo entries; the test knows of 8", entries)
		}
		removeAll(t, h, h.Start(), "files")
	})
}

// TestPipelineParked: a record between two stages is somebody's, until gc is told
// otherwise; and each stage of a pasted pipeline may be killed.
func TestPipelineParked(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		before := warmUp(t, h, image)
		stages := []string{"shocker-spec " + image + " sleep 1000", "shocker-subvol up", "shocker-net up", "shocker-cg up"}
		for n := range stages {
			ok(t, h.Sh(t, strings.Join(stages[:n+1], " | ")+" >record"))
			h.Must(t, "gc")
			if left := ids(t, h); len(left) != 1 {
				t.Errorf("gc after %s: the containers are %q; want the parked one", stages[n], left)
			}
			out := h.Must(t, "gc", "--created")
			if !strings.HasPrefix(out, "Removed: ps_") {
				t.Errorf("gc --created after %s printed %q", stages[n], out)
			}
			h.Settle(t, before, "files", "links", "addresses", "nft", "mounts")
		}
		removeAll(t, h, h.Start(), "files")
	})
}

// TestGcLeavesAlone what runs and what has exited in order.
func TestGcLeavesAlone(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		h.Must(t, "run", "-d", "--name", "runs", image, "sleep", "1000")
		h.Must(t, "run", "--name", "exited", image, "echo", "kept")
		list := h.Must(t, "ps", "-l")
		h.Must(t, "gc", "--created")
		if now := h.Must(t, "ps", "-l"); now != list {
			t.Errorf("before gc:\n%safter:\n%s", list, now)
		}
		if got := h.Must(t, "logs", "exited"); got != "kept\n" {
			t.Errorf("the log is %q", got)
		}
		ok(t, h.Sh(t, "shocker exec runs true"))
	})
}

// TestSupervisorKilled: the container goes on; when it has ended, gc does what
// its supervisor had to.
func TestSupervisorKilled(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		before := warmUp(t, h, image)
		shocker := filepath.Join(h.Bin(t), "shocker")
		for _, rm := range []bool{false, true} {
			args := []string{"run", "--name", "web", "--rm=" + fmt.Sprint(rm), image, "sleep", "1000"}
			killed(t, func() bool {
				r := h.Shocker(t, "exec", "web", "true")
				return r.Code == 0
			}, shocker, args...)
			if list := h.Must(t, "ps", "-l"); !strings.Contains(list, "\trunning\t") {
				t.Errorf("rm %v: without its supervisor: %s", rm, list)
			}
			h.Must(t, "gc")
			ok(t, h.Sh(t, "shocker exec web true; shocker kill web"))
			testkit.Eventually(t, testkit.Patience(10*time.Second), func() error {
				if list := h.Must(t, "ps", "-l"); strings.Contains(list, "\trunning\t") {
					return errors.New(list)
				}
				return nil
			})
			h.Must(t, "gc")
			if left := ids(t, h); (len(left) == 0) != rm {
				t.Errorf("rm %v: after its end and gc the containers are %q", rm, left)
			}
			if !rm {
				h.Must(t, "rm", "web")
			}
			h.Settle(t, before, "files", "links", "addresses", "nft", "mounts")
		}
		removeAll(t, h, h.Start(), "files")
	})
}
