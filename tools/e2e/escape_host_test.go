package e2e

import (
	"errors"
	"strings"
	"testing"
	"time"

	"shocker.sh/lib/testkit"
)

// TestEscapeSetuid: the container's root makes a program that is set-user-ID
// for root, and somebody on the host executes it. That the store lets nobody in
// guards us, and for the attached root the mode of the run dir
// (CVE-2021-41091).
func TestEscapeSetuid(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		id := strings.TrimSpace(h.Must(t, "run", "-d", image, "sh", "-c", "cp /bin/busybox /tmp/evil && chmod 4755 /tmp/evil && chmod 777 / && echo done && exec sleep 1000"))
		testkit.Eventually(t, 10*time.Second, func() error {
			if got := h.Must(t, "logs", id); got != "done\n" {
				return errors.New(got)
			}
			return nil
		})
		for _, path := range []string{
			h.Store + "/containers/" + id + "/rootfs/tmp/evil",
			h.Store + "/layers/*/bin/busybox",
			h.Store + "/containers/" + id + "/log",
			h.RunDir + "/" + id + "/rootfs/tmp/evil",
			h.RunDir + "/" + id + "/hosts",
		} {
			if list := h.Sh(t, "ls -d "+path); list.Code != 0 {
				t.Fatalf("the attack has no target: %+v", list)
			}
			r := h.Sh(t, "p=$(ls -d "+path+" | head -n 1); setpriv --reuid 65534 --regid 65534 --clear-groups ls -l $p")
			if r.Code == 0 {
				t.Errorf("nobody can reach %s", r.Stdout)
			}
		}
	})
}
