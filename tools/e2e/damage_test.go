package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"shocker.sh/lib/testkit"
)

// damage is what a power cut or a hand can make of a file of the store.
var damage = map[string]string{"empty": "", "cut": `{"ociVersion":"1.0.2","layers":["lo`, "another": `{"a":[1]}`}

// TestDamagedContainer: one that cannot be read is named, stops nobody else,
// and can be removed, running or not.
func TestDamagedContainer(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		before := idle(t, h, image)
		for _, file := range []string{"config.json", "state.json"} {
			for what, content := range damage {
				if file == "state.json" && what == "another" {
					continue // it is a state
				}
				for _, program := range []string{"true", "sleep 1000"} {
					good := strings.TrimSpace(h.Must(t, "run", "-d", image, "true"))
					h.Must(t, "wait", good)
					bad := strings.TrimSpace(ok(t, h.Sh(t, "shocker run -d --name damaged "+image+" "+program)))
					if program == "true" {
						h.Must(t, "wait", bad)
					}
					write(t, filepath.Join(h.Store, "containers", bad, file), content)
					for _, command := range []string{"ps", "ps -l", "gc", "rm " + bad, "rmi " + image, "inspect " + bad} {
						r := h.Sh(t, "shocker "+command)
						if r.Code != 1 || !strings.Contains(r.Stderr, bad) || !strings.Contains(r.Stderr, "is damaged, remove it with rm -f") {
							t.Errorf("%s of %s: %s = %d, %q; want 1 and what to do", what, file, command, r.Code, r.Stderr)
						}
						if strings.HasPrefix(command, "ps") && !strings.Contains(r.Stdout, good) {
							t.Errorf("%s of %s: %s shows %q; want the others", what, file, command, r.Stdout)
						}
					}
					h.Must(t, "run", "--rm", image, "true")
					if got := h.Must(t, "rm", "-f", bad, good); got != "Removed: "+bad+"\nRemoved: "+good+"\n" {
						t.Errorf("rm says %q", got)
					}
					h.Must(t, "gc")
					back(t, h, before, what+" "+file+" of "+program)
				}
			}
		}
		// Of a restart only the store is left.
		bad := strings.TrimSpace(h.Must(t, "run", "-d", "--name", "damaged", image, "true"))
		h.Must(t, "wait", bad)
		write(t, filepath.Join(h.Store, "containers", bad, "config.json"), "")
		ok(t, h.Sh(t, "rm -r "+filepath.Join(h.RunDir, bad)+"; find /sys/fs/cgroup -depth -type d -name "+bad+" -exec rmdir {} +"))
		h.Must(t, "rm", "-f", bad)
		h.Must(t, "run", "--rm", "--name", "damaged", image, "true")
		h.Must(t, "gc")
		back(t, h, before, "damaged, after a restart")
	})
}

// TestDamagedNames: names that a power cut has emptied, or whose containers were
// taken away by hand, mean no container, and gc gives them back.
func TestDamagedNames(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		before := idle(t, h, image)
		other := strings.TrimSpace(h.Must(t, "run", "-d", "--name", "other", image, "sleep", "1000"))
		for _, content := range []string{"", "garbage\n", "../images", "ps_1"} {
			write(t, filepath.Join(h.Store, "names", "web"), content)
			if r := h.Shocker(t, "rm", "-f", "web"); r.Code != 1 || r.Stderr != "shocker: No container named 'web' exists\n" {
				t.Errorf("rm -f of a name that says %q: %+v", content, r)
			}
			if r := h.Shocker(t, "run", "--name", "web", image, "true"); r.Code != 125 || !strings.Contains(r.Stderr, "shocker gc") {
				t.Errorf("a name that says %q is taken again: %+v; want what to do", content, r)
			}
			h.Must(t, "gc")
			h.Must(t, "run", "--rm", "--name", "web", image, "true")
		}
		if got := ids(t, h); !slices.Equal(got, []string{other}) {
			t.Errorf("containers are %q; want %q", got, other)
		}
		// What gc could not remove, it has not removed.
		ok(t, h.Sh(t, "shocker kill other; shocker wait other; btrfs subvolume create "+filepath.Join(h.Store, "containers", other, "foreign")))
		ok(t, h.Sh(t, "shocker rm other 2>rm || grep -q 'still holds the subvolume foreign' rm"))
		if r := h.Shocker(t, "gc", "--created"); strings.Contains(r.Stdout, "Removed") {
			t.Errorf("gc of what cannot be removed: %+v", r)
		}
		ok(t, h.Sh(t, "btrfs subvolume delete "+filepath.Join(h.Store, "containers", other, "foreign")))
		h.Must(t, "rm", "-f", other)
		h.Must(t, "gc")
		back(t, h, before, "damaged names")
	})
}

// TestDirectoriesLost: what an administrator has tidied away is made again.
func TestDirectoriesLost(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		before := idle(t, h, image)
		for _, dir := range []string{"tmp", "names", "containers", "volumes"} {
			ok(t, h.Sh(t, "rm -r "+filepath.Join(h.Store, dir)))
			if got := h.Must(t, "run", "--rm", "--name", "x", image, "echo", "hi"); got != "hi\n" {
				t.Errorf("without %s run prints %q", dir, got)
			}
			h.Must(t, "gc")
			back(t, h, before, "without "+dir)
		}
	})
}

// TestDamagedImage: one that cannot be read is named, stops nobody else, and
// can be removed. Until then no layer is swept, since it could be its.
func TestDamagedImage(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		// What is no directory is none of ours.
		write(t, filepath.Join(h.Store, "images", "img_1"), "")
		write(t, filepath.Join(h.Store, "containers", "ps_1"), "")
		for what, content := range damage {
			bad, other := initImage(t, h), initImage(t, h)
			write(t, filepath.Join(h.Store, "images", bad, "image.json"), content)
			for _, command := range []string{"images", "gc", "run " + bad + " true", "inspect " + bad} {
				r := h.Sh(t, "shocker "+command)
				if r.Code == 0 || !strings.Contains(r.Stderr, bad+" is damaged, remove it with rmi") {
					t.Errorf("%s: %s = %d, %q; want an error and what to do", what, command, r.Code, r.Stderr)
				}
				if command == "images" && (!strings.Contains(r.Stdout, image) || !strings.Contains(r.Stdout, other)) {
					t.Errorf("%s: images shows %q; want the others", what, r.Stdout)
				}
			}
			if r := h.Shocker(t, "rmi", other); r.Stdout != "Removed: "+other+"\n" {
				t.Errorf("%s: rmi of another prints %q, %q", what, r.Stdout, r.Stderr)
			}
			source := strings.Split(h.Must(t, "inspect", image), `"source": "`)[1]
			h.Must(t, "run", "--rm", strings.Split(source, `"`)[0], "true")
			h.Must(t, "rmi", bad)
			h.Must(t, "gc")
			layers, err := os.ReadDir(filepath.Join(h.Store, "layers"))
			if err != nil || len(layers) != 1 {
				t.Errorf("%s: layers are %v, %v; want that of %s", what, layers, err, image)
			}
		}
	})
}

// TestTwoStores: what another store's gc sees below their common parent, and
// knows nothing of, is left alone, be it parked, ended or running.
func TestTwoStores(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		before := idle(t, h, image)
		other := "mkdir -p " + h.Store + "/other; SHOCKER_ROOT=" + h.Store + "/other SHOCKER_RUN=/run/other "
		ended := strings.TrimSpace(h.Must(t, "run", "-d", image, "true"))
		h.Must(t, "wait", ended)
		h.Must(t, "run", "-d", image, "sleep 1000")
		parked := ok(t, h.Sh(t, "shocker-spec "+image+" echo unharmed | shocker-subvol up | shocker-net up | shocker-cg up"))
		groups := h.Snapshot(t)["cgroups"]
		if out := ok(t, h.Sh(t, other+"shocker gc")); out != "" {
			t.Errorf("the other's gc says %q", out)
		}
		if d := testkit.Diff(testkit.State{"cgroups": groups}, testkit.State{"cgroups": h.Snapshot(t)["cgroups"]}); d != "" {
			t.Errorf("the other's gc has changed\n%s", d)
		}
		if out := ok(t, h.Sh(t, "echo '"+parked+"' | shocker-run --record -")); out != "unharmed\n" {
			t.Errorf("the parked one prints %q", out)
		}
		ok(t, h.Sh(t, "shocker rm -f $(shocker ps -q); rm -r "+h.Store+"/other"))
		h.Must(t, "gc")
		back(t, h, before, "with another store")
	})
}

// TestRunDirLost: an administrator removes the run dir of a container that
// runs. What its stages made is found all the same, by stop, rm -f and gc; what
// runs is left alone by gc.
func TestRunDirLost(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		before := idle(t, h, image)
		runs := func() bool { return slices.Contains(h.Snapshot(t)["processes"], "sleep 1000") }
		ended := func(what string) {
			t.Helper()
			testkit.Eventually(t, 5*time.Second, func() error {
				if runs() {
					return fmt.Errorf("%s: the program still runs", what)
				}
				return nil
			})
		}
		for _, how := range []string{"stop", "stubborn", "rm", "killed", "forgotten"} {
			program := "sleep 1000"
			if how == "stubborn" {
				program = "trap '' TERM; sleep 1000 & wait; wait"
			}
			id := strings.TrimSpace(h.Must(t, "run", "-d", image, program))
			testkit.Eventually(t, 5*time.Second, func() error {
				if !runs() {
					return errors.New("the program does not run")
				}
				return nil
			})
			// The files of its root stay; what is mounted cannot be removed.
			h.Sh(t, "rm -rf --one-file-system "+filepath.Join(h.RunDir, id))
			if exists(filepath.Join(h.RunDir, id, "undo")) {
				t.Fatal("the undo log is still there")
			}
			h.Must(t, "gc")
			if !runs() || !strings.Contains(h.Must(t, "ps", "-l"), "\trunning\t") {
				t.Errorf("%s: gc took what runs", how)
			}
			switch how {
			case "stop", "stubborn":
				h.Must(t, "stop", "-t", "1", id)
				if runs() {
					t.Errorf("%s: after stop the program still runs", how)
				}
				h.Must(t, "rm", id)
			case "rm":
				h.Must(t, "rm", "-f", id)
				if runs() {
					t.Error("after rm -f the program still runs")
				}
			case "killed":
				ok(t, h.Sh(t, "shocker cg kill "+id))
				ended(how)
				testkit.Eventually(t, 5*time.Second, func() error {
					h.Must(t, "gc")
					left, err := filepath.Glob(filepath.Join(h.RunDir, ".*", "*"))
					leases, err2 := filepath.Glob(filepath.Join(h.RunDir, ".net", "leases", "*"))
					if len(leases) > 0 || exists(filepath.Join(h.RunDir, ".ids", "0")) {
						return fmt.Errorf("gc leaves %q, %q, %v", left, leases, errors.Join(err, err2))
					}
					return nil
				})
				h.Must(t, "rm", id)
			case "forgotten":
				// The store has forgotten it too.
				ok(t, h.Sh(t, "rm -r "+filepath.Join(h.Store, "containers", id)))
				r := h.Shocker(t, "gc")
				if r.Code != 1 || !strings.Contains(r.Stderr, "shocker cg kill "+id) || !runs() {
					t.Errorf("gc with a program that nobody knows: %+v; want it left alone and told", r)
				}
				ok(t, h.Sh(t, "shocker cg kill "+id))
				ended(how)
			}
			h.Must(t, "gc")
			back(t, h, before, how)
		}
	})
}
