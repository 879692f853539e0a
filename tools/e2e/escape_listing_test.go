package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/testkit"
)

// TestEscapeText: what a container, an image or a caller calls itself is shown
// without its control characters. applet.Escape and porcelain.JSON guard us.
func TestEscapeText(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		const evil = "\x1b[2J\u009b31m\x7f\r\a\u2028"
		h.Must(t, "run", "-d", "--network", "none", "-e", "EVIL="+evil, image, "sleep", "1000", evil)
		h.Shocker(t, "run", "--network", "none", image, evil)
		ok(t, h.Sh(t, "shocker-spec "+image+" sleep 1000 | jq -c --arg x \"$(printf '\\033[2J\\302\\2331m\\177')\" '.annotations[$x] = $x | .annotations[\"sh.shocker.source\"] = $x | .annotations[\"org.opencontainers.image.stopSignal\"] = $x' | shocker-subvol up | shocker-net up --network none | shocker-cg up | shocker-run --record - --detach"))
		all := ids(t, h)
		for _, command := range [][]string{
			{"ps"},
			{"ps", "-l"},
			{"ps", "--json"},
			append([]string{"inspect"}, all...),
			{"run", "--network", "none", image, evil},
			{"exec", all[0], evil},
			{"exec", "-u", evil, all[0], "true"},
			{"run", "-w", "/" + evil, image, "true"},
			{"images"},
			{"rm", evil},
			{"init", evil},
			{"run", image, evil + "\x9b"}, // that is no UTF-8
			{"exec", all[0], evil + "\x9b"},
			{"rm", evil + "\x9b"},
		} {
			r := h.Shocker(t, command...)
			for _, c := range r.Stdout + r.Stderr {
				if c < ' ' && c != '\n' && c != '\t' || c >= 0x7f && c < 0xa0 || c == '\uFFFD' {
					t.Errorf("%q shows %q: %q", command, c, r.Stdout+r.Stderr)
					break
				}
			}
		}
	})
}

// TestEscapeRecycledPid: the container's process has ended, its supervisor too,
// and another process has the number. The inode of the pidfd, or the time of
// the start, guards us.
func TestEscapeRecycledPid(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		id := strings.TrimSpace(h.Must(t, "run", "-d", "--network", "none", image, "sleep", "1000"))
		text, err := os.ReadFile(filepath.Join(h.RunDir, id, "state.json"))
		if err != nil {
			t.Fatal(err)
		}
		pid := int(field(t, string(text), "pid").(float64))
		ok(t, h.Sh(t, fmt.Sprintf(`kill -9 $(tr '\0' '\n' </proc/%d/status | awk '/^PPid/ { print $2 }') %[1]d; while [ -e /proc/%[1]d ]; do sleep 0.01; done`, pid)))
		var bystander *os.Process
		testkit.Eventually(t, 20*time.Second, func() error {
			if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", fmt.Append(nil, pid-1), 0); err != nil {
				return err
			}
			p, err := os.StartProcess("/bin/sleep", []string{"sleep", "999"}, &os.ProcAttr{})
			if err != nil {
				return err
			}
			if p.Pid != pid {
				return errors.Join(errors.New("another was faster"), p.Kill())
			}
			bystander = p
			return nil
		})
		for _, command := range [][]string{{"kill", id}, {"stop", "-t", "1", id}, {"exec", id, "true"}, {"ps"}, {"wait", id}, {"gc"}, {"rm", "-f", id}} {
			h.Shocker(t, command...)
			if err := bystander.Signal(unix.Signal(0)); err != nil {
				t.Fatalf("%q: the process that got the number: %v", command, err)
			}
			if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err != nil || strings.Contains(string(stat), ") Z ") {
				t.Fatalf("%q killed the process that got the number: %s, %v", command, stat, err)
			}
		}
		if err := bystander.Kill(); err != nil {
			t.Fatal(err)
		}
		if left := ids(t, h); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
	})
}
