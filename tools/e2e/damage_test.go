package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

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
