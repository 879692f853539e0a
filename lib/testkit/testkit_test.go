package testkit

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestHostIsPrivate(t *testing.T) {
	if !Inside() {
		t.Setenv("OUTSIDE", netns(t))
	}
	Run(t, Options{}, func(t *testing.T, h *Host) {
		if os.Getppid() != 1 {
			t.Errorf("parent is %d; want PID 1 of the host", os.Getppid())
		}
		if netns(t) == os.Getenv("OUTSIDE") {
			t.Error("the network namespace is the machine's")
		}
		if got := h.start["links"]; len(got) != 3 || got[0] != "lo" {
			t.Errorf("links = %q; want lo with its two addresses", got)
		}
		var st unix.Statfs_t
		if err := unix.Statfs(h.Store, &st); err != nil || st.Type != unix.BTRFS_SUPER_MAGIC {
			t.Errorf("the store is no btrfs: %#x, %v", st.Type, err)
		}
		entries, err := os.ReadDir("/run")
		if err != nil || len(entries) != 0 {
			t.Errorf("/run holds %v, %v; want nothing", entries, err)
		}
		text, err := os.ReadFile("/proc/self/cgroup")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, "shocker-test") {
				t.Errorf("/proc/self/cgroup has %q; want the test's group as the root", line)
			}
		}
	})
}

// TestMachineIsSafe: what a test writes, makes and removes is there for the
// test, and the machine sees nothing of it, be it through an absolute link.
func TestMachineIsSafe(t *testing.T) {
	places := []string{"/etc", "/usr/bin", "/var/tmp", "/root", "/tmp", "/"}
	victim := os.Getenv("VICTIM")
	if !Inside() {
		victim = filepath.Join(t.TempDir(), "victim")
		if err := os.WriteFile(victim, []byte("machine"), 0o755); err != nil {
			t.Fatal(err)
		}
		t.Setenv("VICTIM", victim)
		t.Cleanup(func() {
			for _, dir := range places {
				if err := os.Remove(dir + "/shocker-testkit"); err == nil {
					t.Errorf("a file in %s came through to the machine", dir)
				}
			}
			if text, err := os.ReadFile(victim); string(text) != "machine" {
				t.Errorf("the machine's file holds %q, %v", text, err)
			}
		})
	}
	Run(t, Options{NoStore: true}, func(t *testing.T, h *Host) {
		for _, dir := range places {
			if err := os.WriteFile(dir+"/shocker-testkit", nil, 0o644); err != nil {
				t.Error(err)
			}
		}
		link := filepath.Join(h.Dir, "link")
		err := os.Symlink(victim, link)
		if err == nil {
			err = os.WriteFile(link, []byte("test"), 0)
		}
		if text, _ := os.ReadFile(victim); err != nil || string(text) != "test" {
			t.Errorf("the test reads %q after it wrote, %v", text, err)
		}
		if err := os.Remove(victim); err != nil {
			t.Error(err)
		}
	})
}

// TestWritable is what the machine does see.
func TestWritable(t *testing.T) {
	file := os.Getenv("FILE")
	if !Inside() {
		file = filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		t.Setenv("FILE", file)
	}
	Run(t, Options{NoStore: true, Writable: []string{file}}, func(t *testing.T, h *Host) {
		if err := os.WriteFile(file, []byte("test"), 0); err != nil {
			t.Error(err)
		}
	})
	if text, err := os.ReadFile(file); string(text) != "test" && !Inside() {
		t.Errorf("the file holds %q, %v; want what the test wrote", text, err)
	}
}

func netns(t *testing.T) string {
	link, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return link
}

// What the test leaves is removed: groups with processes, a mount, a link.
func TestNothingIsLeftOnTheMachine(t *testing.T) {
	// Not a defer: Run's clean-up is that of the test.
	t.Run("host", func(t *testing.T) {
		Run(t, Options{}, func(t *testing.T, h *Host) {
			if r := h.Command(t, "ip", "link", "add", "shockertest0", "type", "bridge"); r.Code != 0 {
				t.Fatal(r)
			}
			if err := unix.Mount("left", os.TempDir(), "tmpfs", 0, ""); err != nil {
				t.Fatal(err)
			}
			all, err := hierarchies()
			if err != nil {
				t.Fatal(err)
			}
			for _, g := range all {
				if err := os.Mkdir(filepath.Join(g.Point, "left"), 0o755); err != nil {
					t.Error(err)
				}
			}
			cmd := exec.Command("sleep", "1000")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if r := h.Snapshot(t)["processes"]; len(r) != 1 || r[0] != "sleep 1000" {
				t.Errorf("processes = %q; want sleep 1000", r)
			}
			want := "+ links: shockertest0\n+ mounts: tmpfs on " + os.TempDir() + "\n+ processes: sleep 1000"
			if d := Diff(h.Start(), h.Snapshot(t), "cgroups"); d != want {
				t.Errorf("Diff = %s; want %s", d, want)
			}
		})
	})
	if Inside() {
		return
	}
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.Name == "shockertest0" {
			t.Error("a link is left")
		}
	}
	all, err := hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range all {
		left, err := filepath.Glob(fmt.Sprintf("%s/shocker-test-%d-*", g.Point, os.Getpid()))
		if err != nil || len(left) != 0 {
			t.Errorf("groups %q are left, %v", left, err)
		}
	}
}

func TestSettleWaits(t *testing.T) {
	Run(t, Options{}, func(t *testing.T, h *Host) {
		before := h.Snapshot(t)
		cmd := exec.Command("sleep", "0.2")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go cmd.Wait()
		h.Settle(t, before)
	})
}

func TestRegistryAndBusybox(t *testing.T) {
	Requires(t, "docker-registry", "busybox")
	Run(t, Options{}, func(t *testing.T, h *Host) {
		c, err := net.Dial("tcp", h.Registry(t))
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		r := h.Command(t, "chroot", h.Busybox(t), "/bin/sh", "-c", "id -un; exit 3")
		if r.Stdout != "root\n" || r.Code != 3 {
			t.Errorf("in the busybox root: %+v", r)
		}
		h.Settle(t, h.Start())
	})
}

func TestOutside(t *testing.T) {
	Requires(t, "slirp4netns", "ip")
	Run(t, Options{Outside: true}, func(t *testing.T, h *Host) {
		if r := h.Command(t, "ip", "route", "show", "default"); !strings.Contains(r.Stdout, "via 10.0.2.2 dev tap0") {
			t.Errorf("default route = %+v", r)
		}
	})
}

func TestNoStore(t *testing.T) {
	Run(t, Options{NoStore: true}, func(t *testing.T, h *Host) {
		entries, err := os.ReadDir(h.Store)
		if err != nil || len(entries) != 0 {
			t.Errorf("the store holds %v, %v; want an empty directory", entries, err)
		}
	})
}

func TestOrphansAreReaped(t *testing.T) {
	Run(t, Options{}, func(t *testing.T, h *Host) {
		h.Command(t, "sh", "-c", "sleep 0.1 & :")
		Eventually(t, 5*time.Second, func() error {
			if d := Diff(h.Start(), h.Snapshot(t)); d != "" {
				return errors.New(d)
			}
			return nil
		})
	})
}
