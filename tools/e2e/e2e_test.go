// Package e2e tests the toolbox as its users meet it: the built programs, on a
// host of their own.
package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"shocker.sh/lib/testkit"
)

// on runs f on a host that has an image of a static busybox.
func on(t *testing.T, f func(t *testing.T, h *testkit.Host, image string)) {
	t.Helper()
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		t.Chdir(h.Dir)
		f(t, h, initImage(t, h))
	})
}

func initImage(t *testing.T, h *testkit.Host) string {
	t.Helper()
	out := h.Must(t, "init", h.Busybox(t))
	return strings.TrimSpace(strings.TrimPrefix(out, "Created: "))
}

// ok fails the test if the script did, and returns its output.
func ok(t *testing.T, r testkit.Result) string {
	t.Helper()
	if r.Code != 0 {
		t.Fatalf("status %d\nstdout: %s\nstderr: %s", r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// warmUp makes what belongs to the host, by a container that goes again, and
// returns the host as it is then.
func warmUp(t *testing.T, h *testkit.Host, image string) testkit.State {
	t.Helper()
	h.Must(t, "run", "--rm", image, "true")
	return still(t, h)
}

// still is the host once the kernel has deleted the pairs of containers that
// have ended, which it does a little later.
func still(t *testing.T, h *testkit.Host) testkit.State {
	t.Helper()
	testkit.Eventually(t, testkit.Patience(10*time.Second), func() error {
		pairs := strings.Count(h.Sh(t, "ip -o link show group 42002").Stdout, "\n")
		running := strings.Count(h.Sh(t, "shocker ps --json | grep address || true").Stdout, "\n")
		if pairs != running {
			return fmt.Errorf("%d pairs of %d running containers", pairs, running)
		}
		return nil
	})
	return h.Snapshot(t)
}

// ids lists the containers.
func ids(t *testing.T, h *testkit.Host) []string {
	t.Helper()
	return strings.Fields(h.Must(t, "ps", "-q"))
}

// removeAll removes every container and image, and sees that nothing is left.
func removeAll(t *testing.T, h *testkit.Host, before testkit.State, except ...string) {
	t.Helper()
	ok(t, h.Sh(t, `c=$(shocker ps -q) && [ -z "$c" ] || shocker rm -f $c; i=$(shocker images -q) && [ -z "$i" ] || shocker rmi $i; shocker gc --created`))
	h.Settle(t, before, except...)
}

// record reads a container's record as it was run.
func record(t *testing.T, h *testkit.Host, id string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(h.Store, "containers", id, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

var (
	idPattern      = regexp.MustCompile(`ps_[0-9]+`)
	addressPattern = regexp.MustCompile(`"10\.0\.0\.[0-9]+"`)
	hookPattern    = regexp.MustCompile(`"path":"[^"]*/(shocker|shocker-spec)"`) // the program itself, in either form
	rangePattern   = regexp.MustCompile(`"hostID":[0-9]+`)
)

// normal replaces in a record what differs from container to container.
func normal(record string) string {
	record = idPattern.ReplaceAllString(record, "ID")
	record = addressPattern.ReplaceAllString(record, `"ADDRESS"`)
	record = hookPattern.ReplaceAllString(record, `"path":"SHOCKER"`)
	return rangePattern.ReplaceAllString(record, `"hostID":N`)
}

// write makes an executable file and returns its path.
func write(t *testing.T, path, content string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// field reads one value of a JSON text.
func field(t *testing.T, text string, path ...string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	for _, p := range path {
		m, _ := v.(map[string]any)
		v = m[p]
	}
	return v
}
