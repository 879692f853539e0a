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

// program is the device and inode of a runtime's program.
func (a *aim) program() string {
	a.Helper()
	command := "shocker"
	if a.runtime != "" {
		command = a.runtime
	}
	var st unix.Stat_t
	path := strings.TrimSpace(ok(a.T, a.h.Sh(a.T, "realpath $(command -v "+command+")")))
	if err := unix.Stat(path, &st); err != nil {
		a.Fatal(err)
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// TestEscapeExec: a container that lies in wait for `exec`. It must not get at
// the memory, the descriptors or the program of the process that comes in:
// CVE-2019-5736 overwrites the runtime through /proc/PID/exe, CVE-2016-9962
// traces the process before it has lost its descriptors and power.
func TestEscapeExec(t *testing.T) {
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		t.Chdir(h.Dir)
		h.Bin(t)
		dir := tree(t, h)
		write(t, filepath.Join(dir, "evil"), "#!/proc/self/exe\n")
		for _, a := range aims(t, h) {
			// With the power to trace what has no more power than it.
			g := a.prepare(dir, `.process.capabilities |= map_values(. + ["CAP_SYS_PTRACE"])`)
			g.start("/enemy", "watch", a.program())
			g.until("/bin/ls", "/ready")
			for range 3 {
				for _, program := range []string{"/bin/true", "/evil", "/proc/self/exe"} {
					g.exec("", program)
				}
			}
			// The container may end before this program has.
			g.exec("", "/bin/touch", "/stop")
			g.wait()
			if got := g.output(); got != "" {
				a.errorf("the enemy says:\n%s", got)
			}
			g.remove()
		}
	})
}

// until executes a program in the container until it succeeds.
func (g *target) until(args ...string) {
	g.Helper()
	testkit.Eventually(g.T, 10*time.Second, func() error {
		if r := g.exec("", args...); r.Code != 0 {
			return fmt.Errorf("%s: exec %q: %+v", g.aim, args, r)
		}
		return nil
	})
}

// wait waits for the end of the container's program.
func (g *target) wait() {
	g.Helper()
	if g.runtime == "" {
		g.h.Shocker(g.T, "wait", g.id)
		return
	}
	testkit.Eventually(g.T, testkit.Patience(time.Minute), func() error {
		if r := g.h.Sh(g.T, g.runtime+" state "+g.id); strings.Contains(r.Stdout, `"running"`) {
			return errors.New(r.Stdout)
		}
		return nil
	})
}

// output is what a program in the background has written.
func (g *target) output() string {
	g.Helper()
	if g.runtime == "" {
		return g.h.Must(g.T, "logs", g.id)
	}
	text, err := os.ReadFile("started")
	if err != nil {
		g.Fatal(err)
	}
	return string(text)
}
