package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"shocker.sh/lib/testkit"
)

// idle makes of the host one that has had a container and has none now, and
// returns it as it is then. After whatever was killed, gc has to bring it back
// to just that: nothing is left out of the comparison.
func idle(t *testing.T, h *testkit.Host, image string) testkit.State {
	t.Helper()
	// runc keeps its state here, and ip its namespaces.
	ok(t, h.Sh(t, "mkdir -p /run/runc; ip netns add x; ip netns del x"))
	h.Must(t, "run", "--rm", image, "true")
	h.Must(t, "gc")
	var before testkit.State
	testkit.Eventually(t, 10*time.Second, func() error {
		before = everything(t, h)
		if d := testkit.Diff(h.Start(), before, "files", "subvolumes", "mounts", "elsewhere", "forwarding"); d != "" {
			return fmt.Errorf("a container that was removed has left:\n%s", d)
		}
		return nil
	})
	return before
}

// everything is the host's state with the files that others leave elsewhere.
func everything(t *testing.T, h *testkit.Host) testkit.State {
	t.Helper()
	s := h.Snapshot(t)
	forward, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	if err != nil {
		t.Fatal(err)
	}
	s["forwarding"] = []string{string(forward)}
	for _, dir := range []string{os.TempDir(), "/run", filepath.Join(h.Store, "names")} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if path == h.RunDir {
				return fs.SkipDir
			}
			if err == nil {
				s["elsewhere"] = append(s["elsewhere"], path)
			} else if os.IsNotExist(err) {
				err = nil
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(s["elsewhere"])
	return s
}

// back fails the test if the host does not become what it was.
func back(t *testing.T, h *testkit.Host, before testkit.State, what string) {
	t.Helper()
	testkit.Eventually(t, 10*time.Second, func() error {
		if d := testkit.Diff(before, everything(t, h)); d != "" {
			return fmt.Errorf("%s: left behind (+) or missing (-):\n%s", what, d)
		}
		return nil
	})
}
