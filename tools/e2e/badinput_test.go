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
		warmUp(t, h, image)
		h.Must(t, "gc") // and what belongs to the host goes
		before := h.Snapshot(t)
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
			{"shocker run --userns host --userns host2 " + image + " true", 2, "host2"},
			{"shocker run --hostname 'a b' " + image + " true", 2, "a b"},
			{"shocker run -w tmp " + image + " true", 2, "absolute"},
			{"shocker run -w /etc/passwd " + image + " true", 125, "/etc/passwd"},
			{"shocker run -e =x " + image + " true", 2, "=x"},
			{"shocker run -u root:nogroup2 " + image + " true", 125, "no such group in the image"},
			{"shocker run --memory lots " + image + " true", 2, "lots"},
			{"shocker run --cpus 100000 " + image + " true", 2, "100000"},
			{"shocker run --cpu-shares 1 " + image + " true", 2, "--cpu-shares"},
			{"shocker run --pids-limit x " + image + " true", 2, "pids-limit"},
			{"SHOCKER_MEM_LIMIT=x shocker run " + image + " true", 2, "SHOCKER_MEM_LIMIT"},
			{"SHOCKER_CPU_SHARE=x shocker run " + image + " true", 2, "SHOCKER_CPU_SHARE"},
			{"shocker run " + image + " ''", 125, "no program"},
			{"shocker run --entrypoint '' " + image, 2, "no program"},
			{"shocker run --rm --entrypoint nosuchprogram " + image + " x", 127, "nosuchprogram"},
			{"shocker run --rm -d " + image + " nosuchprogram", 127, "nosuchprogram"},
			{"shocker run --rm -d " + image + " /etc/passwd", 126, "/etc/passwd"},
			{"shocker run --rm " + image + " /bin/nosuch/x", 127, "/bin/nosuch/x"},
			{"shocker ps web", 2, "web"},
			{"shocker images web", 2, "web"},
			{"shocker gc web", 2, "web"},
			{"shocker ps --nosuchflag", 2, "nosuchflag"},
			{"shocker logs", 2, "container"},
			{"shocker exec x", 2, "program"},
			{"shocker rm", 2, "rm --help"},
			{"shocker kill -s NOSUCH x", 2, "NOSUCH"},
			{"shocker wait ps_1", 1, "No container named 'ps_1' exists"},
			{"shocker kill ps_1", 1, "No container named 'ps_1' exists"},
			{"shocker start " + image, 1, "No container named '" + image + "' exists"},
			{"shocker rm img_1", 1, "No image named 'img_1' exists"},
			{"shocker-spec nosuch true", 1, "No image named 'nosuch' exists"},
			{"SHOCKER_RUN=/proc/x shocker run " + image + " true", 125, "/proc/x"},
			{"SHOCKER_ROOT=/proc/x shocker ps", 1, "/proc/x"},
			{"shocker ps >/dev/full", 1, "no space left"},
			{"shocker nosuchverb", 2, "nosuchverb"},
			{"shocker init /nowhere", 1, "/nowhere"},
			{"shocker init", 2, "directory"},
			{"shocker init /etc/passwd", 1, "/etc/passwd"},
			{"shocker init " + h.Dir, 1, "holds the store"},
			{"shocker-net up --network host extra", 2, "extra"},
			{"shocker-run --record /nowhere", 125, "/nowhere"},
			{"SHOCKER_SUBNET=10.0.0.0/33 shocker run " + image + " true", 125, "SHOCKER_SUBNET"},
		} {
			r := h.Sh(t, test.command)
			if r.Code != test.code || r.Stdout != "" || strings.Count(r.Stderr, "\n") != 1 || !strings.Contains(r.Stderr, test.want) {
				t.Errorf("%s: %+v; want status %d and one line with %q", test.command, r, test.code, test.want)
			}
		}
		h.Must(t, "gc")
		h.Settle(t, before)
	})
}

// TestNotRoot: whoever may not do anything is told so before anything else.
func TestNotRoot(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		before := warmUp(t, h, image)
		for _, command := range []string{
			"shocker run " + image + " true", "shocker ps", "shocker images", "shocker rm x", "shocker init /",
			"shocker pull debian:12", "shocker gc", "shocker-net up", "shocker-subvol up", "shocker-cg up", "shocker-run --record -",
		} {
			r := h.Sh(t, "setpriv --reuid 65534 --regid 65534 --clear-groups "+command+" </dev/null")
			want := 1
			if strings.Contains(command, "run ") {
				want = 125
			}
			if r.Code != want || r.Stdout != "" || strings.Count(r.Stderr, "\n") != 1 || !strings.Contains(r.Stderr, "must be run as root") {
				t.Errorf("nobody's %s: %+v", command, r)
			}
		}
		h.Settle(t, before)
	})
}

// TestWrongState: what can be done only to what runs, or to what does not.
func TestWrongState(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		h.Must(t, "run", "--name", "done", image, "true")
		done := ids(t, h)[0]
		up := strings.TrimSpace(h.Must(t, "run", "-d", "--name", "up", image, "sleep", "1000"))
		made := strings.TrimSpace(ok(t, h.Sh(t, "shocker-spec --name made "+image+" true | jq -r .hostname")))
		before := h.Snapshot(t)
		for _, test := range []struct{ command, want string }{
			{"exec done true", "Container '" + done + "' exists but is not running"},
			{"exec made true", "Container '" + made + "' exists but is not running"},
			{"kill done", "Container '" + done + "' exists but is not running"},
			{"rm up", up + " is running"},
			{"start up", up + " is running"},
			{"wait made", "has not been started"},
			{"rmi " + image, image + " is in use"},
			{"rm " + image, image + " is in use"},
		} {
			r := h.Sh(t, "shocker "+test.command)
			if r.Code != 1 || r.Stdout != "" || strings.Count(r.Stderr, "\n") != 1 || !strings.Contains(r.Stderr, test.want) {
				t.Errorf("%s: %+v; want status 1 and one line with %q", test.command, r, test.want)
			}
		}
		if r := h.Shocker(t, "run", "--name", "done", image, "true"); r.Code != 125 || !strings.Contains(r.Stderr, done) {
			t.Errorf("the name of a stopped one: %+v; want its owner named", r)
		}
		h.Settle(t, before)
		// One that fails stops no other.
		r := h.Shocker(t, "rm", "done", "nosuch", "up", "made")
		if r.Code != 1 || r.Stdout != "Removed: "+done+"\nRemoved: "+made+"\n" || strings.Count(r.Stderr, "\n") != 2 {
			t.Errorf("rm of several: %+v", r)
		}
		h.Must(t, "run", "--rm", "--name", "done", image, "true")
	})
}

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
