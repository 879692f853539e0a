package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/testkit"
)

// killed starts a shell line in a process group of its own, waits for the
// condition and kills the group with -9.
func killed(t *testing.T, when func() bool, line string) {
	t.Helper()
	cmd := exec.Command("sh", "-c", line)
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
			t.Fatalf("%s: it ended before it could be killed", line)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: it never came to where it is killed", line)
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

// runs is the condition that a container runs `sleep 1000`, and that our last
// stage, if it is ours, has written that down.
func runs(t *testing.T, h *testkit.Host, ours bool) func() bool {
	return func() bool {
		list := h.Must(t, "ps", "-l")
		if !strings.Contains(list, "\trunning\t") || !slices.Contains(h.Snapshot(t)["processes"], "sleep 1000") {
			return false
		}
		states, _ := filepath.Glob(filepath.Join(h.Store, "containers", "*", "state.json"))
		state, err := os.ReadFile(states[0])
		return err == nil && (!ours || strings.Contains(string(state), `"started"`))
	}
}

// blocked puts a program in the place of a station that does what the station
// does, but does not pass its record on. It says so by making the file here.
func blocked(t *testing.T, h *testkit.Host, station, real string) (dir, here string) {
	t.Helper()
	dir, here = filepath.Join(h.Dir, "blocked-"+station), filepath.Join(h.Dir, "here")
	ok(t, h.Sh(t, "rm -f "+here))
	write(t, filepath.Join(dir, station), fmt.Sprintf("#!/bin/sh -e\n[ \"$1\" != down ] || exec %[1]s down\n%[1]s \"$@\" >/dev/null\ntouch %[2]s\nexec sleep 1000\n", real, here))
	return dir, here
}

// TestPipelineKilled kills whole sessions behind each stage, ours and the ones
// in their places: gc leaves nothing.
func TestPipelineKilled(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		before := idle(t, h, image)
		for _, names := range append(choices(), nil) {
			if testing.Short() && len(names) == 1 {
				continue // all at once, and none
			}
			path := filepath.Join(h.Dir, "nothing")
			if names != nil {
				path = install(t, h, names...)
			}
			for stop, station := range stations {
				what := fmt.Sprintf("%q replaced, killed behind %s", names, station)
				t.Setenv("SHOCKER_PATH", path)
				commands := strings.Split(strings.TrimSpace(h.Must(t, "run", "-n", image, "sleep", "1000")), " | ")
				if station == "shocker-run" {
					for _, line := range []string{"shocker run " + image + " sleep 1000", strings.Join(commands, " | ")} {
						is := runs(t, h, !slices.Contains(names, station))
						killed(t, is, line)
						h.Must(t, "gc")
						if !is() {
							t.Errorf("%s: gc took a container that ran", what)
						}
						h.Must(t, append([]string{"rm", "-f"}, ids(t, h)...)...)
						back(t, h, before, what)
					}
					continue
				}

				here := filepath.Join(h.Dir, "here")
				ok(t, h.Sh(t, "rm -f "+here))
				line := strings.Join(commands[:stop+1], " | ") + " | { cat >/dev/null; touch " + here + "; exec sleep 1000; }"
				killed(t, func() bool { return exists(here) }, line)
				h.Must(t, "gc")
				if left := ids(t, h); len(left) != 1 {
					t.Errorf("%s: pasted, the containers are %q; want the parked one", what, left)
				}
				h.Must(t, "gc", "--created")
				back(t, h, before, "pasted, "+what)

				real := filepath.Join(h.Bin(t), station)
				if slices.Contains(names, station) {
					real = filepath.Join(path, station)
				}
				dir, here := blocked(t, h, station, real)
				t.Setenv("SHOCKER_PATH", dir+":"+path)
				killed(t, func() bool { return exists(here) }, "exec shocker run "+image+" sleep 1000")
				if station == "shocker-spec" {
					// Nobody else knew of the record yet: it is a parked one.
					h.Must(t, "gc", "--created")
				} else {
					h.Must(t, "gc")
				}
				back(t, h, before, "composed, "+what)
			}
		}
	})
}

// effects are what can be asked of a session in a number of ways, each of
// which has effects of its own.
var effects = []string{"", "--rm", "-d", "--network none", "--network host --userns host", "--name web"}

// TestPipelineKilledAtEachEffect kills as soon as the n-th undo entry is
// written, which is before that effect or in its midst.
func TestPipelineKilledAtEachEffect(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		before := idle(t, h, image)
		for i, flags := range effects {
			if testing.Short() && i > 0 {
				break
			}
			args := flags + " " + image + " sleep 1000"
			for _, line := range []string{"exec shocker run " + args, strings.TrimSpace(h.Sh(t, "shocker run -n "+args).Stdout)} {
				ok(t, h.Sh(t, "shocker run -d "+args))
				all, err := filepath.Glob(filepath.Join(h.RunDir, ids(t, h)[0], "undo", "0*"))
				if err != nil || len(all) == 0 {
					t.Fatalf("the undo entries are %q, %v", all, err)
				}
				ok(t, h.Sh(t, "shocker rm -f $(shocker ps -q)"))
				for n := 1; n <= len(all); n++ {
					pattern := filepath.Join(h.RunDir, "ps_*", "undo", fmt.Sprintf("%06d-*", n))
					killed(t, func() bool {
						found, _ := filepath.Glob(pattern)
						return len(found) > 0
					}, line)
					cleanUp(t, h)
					back(t, h, before, fmt.Sprintf("%s: killed at entry %d of %d", line, n, len(all)))
				}
			}
		}
	})
}

// TestPipelineKilledAnywhere kills at moments all over a session.
func TestPipelineKilledAnywhere(t *testing.T) {
	moments := 24
	if testing.Short() {
		moments = 4
	}
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		before := idle(t, h, image)
		for _, flags := range []string{"", "--rm", "-d"} {
			args := flags + " " + image + " true"
			for _, line := range []string{"exec shocker run " + args, strings.TrimSpace(h.Must(t, "run", "-n", "--rm", image, "true"))} {
				began := time.Now()
				ok(t, h.Sh(t, line))
				took := time.Since(began)
				for i := range moments {
					moment := took * time.Duration(i+1) / time.Duration(moments)
					cmd := exec.Command("sh", "-c", line)
					cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
					if err := cmd.Start(); err != nil {
						t.Fatal(err)
					}
					time.AfterFunc(moment, func() { _ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) })
					_ = cmd.Wait()
					cleanUp(t, h)
					back(t, h, before, fmt.Sprintf("%s: killed after %v of %v", line, moment, took))
				}
			}
		}
	})
}

// cleanUp ends what runs, lets gc do its part, and removes what has exited in
// order, which is not gc's to remove.
func cleanUp(t *testing.T, h *testkit.Host) {
	t.Helper()
	testkit.Eventually(t, 10*time.Second, func() error {
		r := h.Sh(t, `
			with() { shocker ps -l | awk -F '\t' -v s="$1" 'NR > 1 && index($3, s) == 1 { print $1 }'; }
			for c in $(with running); do shocker kill "$c" || true; done
			shocker gc --created >/dev/null
			for c in $(with exited); do shocker rm "$c" || true; done
			shocker gc
			[ -z "$(shocker ps -q)" ]`)
		if r.Code != 0 {
			return errors.New(r.Stdout + r.Stderr)
		}
		return nil
	})
}

// TestKilledBetween kills the composer, which is ours, before a station of
// another's: gc alone takes everything back.
func TestKilledBetween(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		before := idle(t, h, image)
		for _, next := range stations[1:] {
			dir, here := blocked(t, h, next, "true")
			t.Setenv("SHOCKER_PATH", dir)
			killed(t, func() bool { return exists(here) }, "exec shocker run --rm "+image+" true")
			h.Must(t, "gc")
			if next == "shocker-run" {
				// To the composer the program had started: gc removed it for --rm.
				h.Must(t, "gc")
			}
			back(t, h, before, "killed before "+next)
		}
	})
}

// TestKilledRemoval kills rm when the n-th undo entry is gone: gc goes on with
// removing the container, unless rm -f had only come to killing it.
func TestKilledRemoval(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		before := idle(t, h, image)
		for _, test := range []struct{ run, rm string }{
			{"run --name web " + image + " true", "rm web"},
			{"run --name web -d " + image + " sleep 1000", "rm -f web"},
		} {
			for n, all := 1, 1; n <= all; n++ {
				ok(t, h.Sh(t, "shocker "+test.run))
				id := ids(t, h)[0]
				entries := func() int {
					found, _ := filepath.Glob(filepath.Join(h.RunDir, id, "undo", "0*"))
					return len(found)
				}
				all = entries()
				killed(t, func() bool { return entries() <= all-n }, "exec shocker "+test.rm)
				what := fmt.Sprintf("%s killed at entry %d of %d", test.rm, n, all)
				testkit.Eventually(t, 10*time.Second, func() error {
					h.Must(t, "gc") // a supervisor may still be at it
					list := h.Must(t, "ps", "-l")
					if strings.Contains(test.rm, "-f") && strings.Contains(list, "\texited (137)\t") {
						h.Must(t, "rm", id)
					} else if strings.Contains(list, id) {
						return fmt.Errorf("%s: %s", what, list)
					}
					return nil
				})
				back(t, h, before, what)
			}
		}
	})
}

// TestKilledStart kills the start of a container that has exited: it is as it
// was, and can be started.
func TestKilledStart(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		before := idle(t, h, image)
		h.Must(t, "run", image, "sh", "-c", "echo line >>/tmp/file; cat /tmp/file")
		id := ids(t, h)[0]
		exited := h.Snapshot(t)
		for _, next := range stations[1:4] {
			dir, here := blocked(t, h, next, filepath.Join(h.Bin(t), next))
			t.Setenv("SHOCKER_PATH", dir)
			killed(t, func() bool { return exists(here) }, "exec shocker start "+id)
			t.Setenv("SHOCKER_PATH", "")
			h.Must(t, "gc")
			if list := h.Must(t, "ps", "-l"); !strings.Contains(list, id) || !strings.Contains(list, "\texited") {
				t.Errorf("killed behind %s: ps -l: %s; want it exited", next, list)
			}
			h.Settle(t, exited, "files")
		}
		if got := h.Must(t, "start", "-a", id); got != "line\nline\n" {
			t.Errorf("start -a: %q; want the file to be there", got)
		}
		h.Must(t, "rm", id)
		back(t, h, before, "start was killed")
	})
}

// TestGcLeavesAlone what runs, what has exited in order, and what is parked.
func TestGcLeavesAlone(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		h.Must(t, "run", "-d", "--name", "runs", image, "sleep", "1000")
		h.Must(t, "run", "-d", "--name", "by-hand", image, "sleep", "1000")
		h.Must(t, "run", "--name", "exited", image, "echo", "kept")
		ok(t, h.Sh(t, "shocker-spec --name parked "+image+" echo went on | shocker-subvol up | shocker-net up >record"))
		list, before := h.Must(t, "ps", "-l"), everything(t, h)
		for range 2 {
			h.Must(t, "gc")
		}
		if now := h.Must(t, "ps", "-l"); now != list {
			t.Errorf("before gc:\n%safter:\n%s", list, now)
		}
		back(t, h, before, "gc")
		if got := ok(t, h.Sh(t, "shocker-cg up <record | shocker-run --record -")); got != "went on\n" {
			t.Errorf("the parked record's program printed %q", got)
		}
		if got := h.Must(t, "logs", "exited"); got != "kept\n" {
			t.Errorf("the log is %q", got)
		}
		ok(t, h.Sh(t, "shocker exec runs true"))
		h.Must(t, "gc", "--created")
		if now := strings.Fields(h.Must(t, "ps", "-q")); len(now) != 4 {
			t.Errorf("gc --created left %q of four containers that were started", now)
		}
	})
}

// TestSupervisorKilled: the container goes on; when it has ended, gc does what
// its supervisor had to.
func TestSupervisorKilled(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		before := idle(t, h, image)
		for _, rm := range []bool{false, true} {
			is := runs(t, h, true)
			killed(t, is, fmt.Sprintf("exec shocker run --name web --rm=%v %s sleep 1000", rm, image))
			for range 2 {
				if !is() {
					t.Errorf("rm %v: without its supervisor: %s", rm, h.Must(t, "ps", "-l"))
				}
				h.Must(t, "gc")
			}
			ok(t, h.Sh(t, "shocker exec web true; shocker kill web"))
			testkit.Eventually(t, 10*time.Second, func() error {
				if is() {
					return errors.New("it runs")
				}
				return nil
			})
			h.Must(t, "gc")
			if left := ids(t, h); (len(left) == 0) != rm {
				t.Errorf("rm %v: after its end and gc the containers are %q", rm, left)
			}
			if !rm {
				if list := h.Must(t, "ps", "-l"); !strings.Contains(list, "\texited") {
					t.Errorf("after its end and gc: %s; want it exited", list)
				}
				h.Must(t, "rm", "web")
			}
			back(t, h, before, fmt.Sprintf("the supervisor killed, rm %v", rm))
		}
	})
}

// TestSupervisorSlow: between the end of the program and the supervisor's last
// word nobody else says how it ended, or takes the container away.
func TestSupervisorSlow(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		before := idle(t, h, image)
		for _, rm := range []bool{false, true} {
			id := strings.TrimSpace(ok(t, h.Sh(t, fmt.Sprintf("shocker run -d --rm=%v %s sleep 1000", rm, image))))
			pids := strings.Fields(ok(t, h.Sh(t, "pgrep -f '^shocker-run --supervise'")))
			if len(pids) != 1 {
				t.Fatalf("the supervisors are %q", pids)
			}
			ok(t, h.Sh(t, "kill -STOP "+pids[0]+"; shocker kill "+id))
			testkit.Eventually(t, 10*time.Second, func() error {
				if list := h.Must(t, "ps", "-l"); strings.Contains(list, "running") {
					return errors.New(list)
				}
				return nil
			})
			if got := h.Must(t, "gc"); got != "" {
				t.Errorf("rm %v: gc prints %q", rm, got)
			}
			gone := make(chan testkit.Result)
			if !rm {
				go func() { gone <- h.Sh(t, "shocker wait "+id+" && shocker rm "+id) }()
			} else {
				go func() {
					gone <- h.Sh(t, "while [ -e "+filepath.Join(h.Store, "containers", id)+" ]; do sleep 0.01; done")
				}()
			}
			ok(t, h.Sh(t, "kill -CONT "+pids[0]))
			if got := ok(t, <-gone); !rm && got != "137\nRemoved: "+id+"\n" {
				t.Errorf("wait and rm print %q", got)
			}
			h.Must(t, "gc")
			back(t, h, before, fmt.Sprintf("the supervisor slow, rm %v", rm))
		}
	})
}
