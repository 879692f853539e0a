package e2e

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"shocker.sh/lib/testkit"
)

// TestBadInput: each is one clear line and the right status, and leaves
// nothing.
func TestBadInput(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		before := warmUp(t, h, image)
		h.Bin(t)
		for _, test := range []struct {
			command string
			code    int
			want    string
		}{
			{"shocker run nosuch true", 125, "No image named 'nosuch' exists"},
			{"shocker run img_1 true", 125, "No image named 'img_1' exists"},
			{"shocker commit ps_1 " + image, 1, "No container named 'ps_1' exists"},
			{"shocker rmi img_1", 1, "No image named 'img_1' exists"},
			{"shocker rm ps_1", 1, "No container named 'ps_1' exists"},
			{"shocker logs ../../etc", 1, "No container named '../../etc' exists"},
			{"shocker exec ps_1 true", 1, "No container named 'ps_1' exists"},
			{"shocker stop ps_1", 1, "No container named 'ps_1' exists"},
			{"shocker inspect nosuch", 1, "No container named 'nosuch' exists"},
			{"shocker run --rm " + image + " nosuchprogram", 127, "nosuchprogram"},
			{"shocker run --rm " + image + " /etc/passwd", 126, "/etc/passwd"},
			{"shocker run --rm " + image + " /etc", 126, "/etc"},
			{"shocker run -u nobody2 " + image + " true", 125, "no such user in the image"},
			{"shocker run -u 4294967296 " + image + " true", 125, "4294967296"},
			{"shocker run --name ps_5 " + image + " true", 125, "looks like an id"},
			{"shocker run --name a/b " + image + " true", 125, "a/b"},
			{"shocker run --nosuchflag " + image, 2, "nosuchflag"},
			{"shocker run", 2, "an image is missing"},
			{"shocker run --network moon " + image + " true", 2, "moon"},
			{"shocker run --userns moon " + image + " true", 2, "moon"},
			{"shocker nosuchverb", 2, "nosuchverb"},
			{"shocker init /nowhere", 1, "/nowhere"},
			{"shocker init", 2, "directory"},
			{"shocker-net up --network host extra", 2, "extra"},
			{"shocker-run --record /nowhere", 125, "/nowhere"},
			{"SHOCKER_SUBNET=10.0.0.0/33 shocker run " + image + " true", 125, "SHOCKER_SUBNET"},
			{"setpriv --reuid 65534 --regid 65534 --clear-groups shocker ps", 1, "must be run as root"},
			{"setpriv --reuid 65534 --regid 65534 --clear-groups shocker run " + image + " true", 1, "must be run as root"},
		} {
			r := h.Sh(t, "chmod 755 . .. 2>/dev/null; "+test.command)
			if r.Code != test.code || r.Stdout != "" || strings.Count(r.Stderr, "\n") != 1 || !strings.Contains(r.Stderr, test.want) {
				t.Errorf("%s: %+v; want status %d and one line with %q", test.command, r, test.code, test.want)
			}
		}
		h.Settle(t, before, "files")
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
