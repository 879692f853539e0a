package testkit

import (
	"path/filepath"
	"strings"
	"testing"
)

// The quickstart installs, makes the embedded store and runs a container,
// twice.
func TestQuickstart(t *testing.T) {
	if testing.Short() {
		t.Skip("builds everything")
	}
	Requires(t, "busybox")
	Run(t, Options{NoStore: true}, func(t *testing.T, h *Host) {
		script, err := filepath.Abs("../../scripts/quickstart")
		if err != nil {
			t.Fatal(err)
		}
		t.Setenv("PREFIX", h.Dir)
		t.Setenv("HOME", "/root") // where Go's cache is
		for _, round := range []string{"first", "second"} {
			r := h.Command(t, script)
			for _, want := range []string{"# shocker run --name quickstart img_", "this is ps_", "where I am root", "Removed: ps_"} {
				if !strings.Contains(r.Stdout, want) || r.Code != 0 {
					t.Fatalf("the %s time: status %d, no %q in\n%s\n%s", round, r.Code, want, r.Stdout, r.Stderr)
				}
			}
			if round == "second" && strings.Contains(r.Stdout, "shocker init") {
				t.Errorf("the second time it makes an image again:\n%s", r.Stdout)
			}
		}
	})
}
