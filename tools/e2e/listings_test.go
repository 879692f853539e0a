package e2e

import (
	"strings"
	"testing"

	"shocker.sh/lib/testkit"
)

// TestListings: what a program is called cannot break them.
func TestListings(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		h.Must(t, "run", image, "printf", "a\tb\nc\x1b[31m")
		id := ids(t, h)[0]
		if got, want := h.Must(t, "ps"), "CONTAINER_ID\tCOMMAND\n"+id+"\tprintf a\\tb\\nc\\x1b[31m\n"; got != want {
			t.Errorf("ps: %q; want %q", got, want)
		}
		got := ok(t, h.Sh(t, "shocker ps --json | jq -r '.id, .args[1], .status, .exitStatus'"))
		if want := id + "\na\tb\nc\x1b[31m\nexited\n0\n"; got != want {
			t.Errorf("ps --json: %q; want %q", got, want)
		}
		if got := ok(t, h.Sh(t, "shocker images -q; shocker images --json | jq -r .id; shocker inspect "+image+" | jq -r .id; shocker inspect "+id+" | jq -r .id,.record.hostname")); got != strings.Repeat(image+"\n", 3)+id+"\n"+id+"\n" {
			t.Errorf("ids: %q", got)
		}
		if got := h.Must(t, "ps", "-l"); !strings.HasPrefix(got, "CONTAINER_ID\tCOMMAND\tSTATUS\tIMAGE\tCREATED\tADDRESS\tNAME\n") {
			t.Errorf("ps -l: %q", got)
		}
	})
}
