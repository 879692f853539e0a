package e2e

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"shocker.sh/lib/testkit"
)

// TestSubnets: one without a free address, and one that the host has already.
func TestSubnets(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		t.Setenv("SHOCKER_SUBNET", "10.0.0.0/30")
		h.Must(t, "run", "-d", "--name", "only", image, "sleep", "1000")
		before := h.Snapshot(t)
		r := h.Shocker(t, "run", image, "true")
		if r.Code != 125 || !strings.Contains(r.Stderr, "10.0.0.0/30") || !strings.Contains(r.Stderr, "SHOCKER_SUBNET") || strings.Count(r.Stderr, "\n") != 1 {
			t.Errorf("a second container where there is one address: %+v", r)
		}
		h.Settle(t, before)
		h.Must(t, "run", "--network", "none", "--rm", image, "true")
		h.Must(t, "rm", "-f", "only")
		if got := h.Must(t, "run", "--rm", image, "sh", "-c", "hostname -i"); got != "10.0.0.2\n" {
			t.Errorf("the address that is free again: %q", got)
		}
		h.Must(t, "gc") // the bridge

		ok(t, h.Sh(t, "ip link add lan type bridge; ip link set lan up; ip addr add 10.0.0.77/16 dev lan"))
		t.Setenv("SHOCKER_SUBNET", "")
		before = h.Snapshot(t)
		r = h.Shocker(t, "run", image, "true")
		if r.Code != 125 || !strings.Contains(r.Stderr, "route to 10.0.0.0/16 through lan") || !strings.Contains(r.Stderr, "SHOCKER_SUBNET") || strings.Count(r.Stderr, "\n") != 1 {
			t.Errorf("a subnet within the host's: %+v", r)
		}
		h.Settle(t, before, "files", "mounts") // the root of the run dirs is there
		t.Setenv("SHOCKER_SUBNET", "10.9.0.0/24")
		h.Must(t, "run", "--rm", image, "true")
	})
}

// TestFullStore: a clear error, and the store can be used again.
func TestFullStore(t *testing.T) {
	if testing.Short() {
		t.Skip("it fills a file system")
	}
	testkit.Run(t, testkit.Options{StoreSize: 300 << 20}, func(t *testing.T, h *testkit.Host) {
		t.Chdir(h.Dir)
		image := initImage(t, h)
		big := h.Dir + "/big"
		if err := os.Mkdir(big, 0o755); err != nil {
			t.Fatal(err)
		}
		ok(t, h.Sh(t, "head -c 400000000 /dev/urandom >big/file"))
		r := h.Shocker(t, "init", big)
		if r.Code != 1 || r.Stdout != "" || !strings.Contains(r.Stderr, "no space left on device") {
			t.Errorf("init of more than fits: %+v", r)
		}
		// btrfs frees what was deleted when it has committed that.
		testkit.Eventually(t, testkit.Patience(time.Minute), func() error {
			ok(t, h.Sh(t, "btrfs filesystem sync "+h.Store))
			if r := h.Shocker(t, "run", "--rm", image, "echo", "still"); r.Stdout != "still\n" {
				return errors.New(r.Stderr)
			}
			return nil
		})
		if got := h.Must(t, "images", "-q"); got != image+"\n" {
			t.Errorf("the images are %q", got)
		}
	})
}
