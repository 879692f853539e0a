package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"shocker.sh/lib/testkit"
)

// TestEscapeStubborn: a program that does not want to end, or to be removed.
// That a container is ended by its cgroup guards us, that a frozen one is
// thawed, and that a subvolume is deleted with those in it.
func TestEscapeStubborn(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, _ string) {
		filled := strings.TrimSpace(strings.TrimPrefix(h.Must(t, "init", tree(t, h)), "Created: "))
		freeze := func(id string) string {
			return fmt.Sprintf("for f in /sys/fs/cgroup/freezer/%s/freezer.state /sys/fs/cgroup/%[1]s/cgroup.freeze; do [ ! -e $f ] || case $f in *state) echo FROZEN >$f ;; *) echo 1 >$f ;; esac; done", id)
		}
		for _, test := range []struct {
			what, filter, script string
			frozen               bool
		}{
			{"it hears nothing", ".", "trap '' TERM HUP INT; echo up; while :; do sleep 1; done", false},
			{"it has stopped itself", ".", "echo up; (kill -STOP $PPID) & kill -STOP -1; while :; do :; done", false},
			{"it forks without end", ".linux.resources.pids.limit = 100", "trap '' TERM; echo up; f() { f | f & }; while :; do f; done 2>/dev/null", false},
			{"its image names no signal", `.annotations["org.opencontainers.image.stopSignal"] = "SIGNOSUCH"`, "trap 'exit 0' TERM; echo up; while :; do sleep 0.1; done", false},
			{"its image names a signal that ends nothing", `.annotations["org.opencontainers.image.stopSignal"] = "SIGCONT"`, "echo up; while :; do sleep 1; done", false},
			{"it is frozen", ".", "echo up; while :; do sleep 1; done", true},
			{"it has nested subvolumes", "del(.linux.seccomp)", "/enemy subvolumes 50 && echo up; while :; do sleep 1; done", false},
		} {
			for _, end := range []string{"stop -t 1", "rm -f"} {
				ok(t, h.Sh(t, fmt.Sprintf("shocker-spec %s sh -c %s | jq -c %s | shocker-subvol up | shocker-net up --network none | shocker-cg up | shocker-run --record - --detach >id", filled, quote(test.script), quote(test.filter))))
				text, err := os.ReadFile("id")
				if err != nil {
					t.Fatal(err)
				}
				id := strings.TrimSpace(string(text))
				testkit.Eventually(t, 20*time.Second, func() error {
					if got := h.Must(t, "logs", id); !strings.Contains(got, "up\n") {
						return fmt.Errorf("%s: it says %q", test.what, got)
					}
					return nil
				})
				if test.frozen {
					ok(t, h.Sh(t, freeze(id)))
				}
				r := h.Sh(t, "timeout 60 shocker "+end+" "+id)
				if r.Code != 0 {
					t.Errorf("%s: %s: %+v", test.what, end, r)
					ok(t, h.Sh(t, "for f in /sys/fs/cgroup/freezer/"+id+"/freezer.state; do [ ! -e $f ] || echo THAWED >$f; done"))
				}
				h.Sh(t, "shocker rm -f "+id)
			}
		}
		removeAll(t, h, h.Start(), "files")
	})
}
