package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"shocker.sh/lib/testkit"
)

// habit is what somebody who knows other runtimes types, and what comes of it.
type habit struct {
	script, want string
}

// habits runs each in turn on a fresh bundle of sleep, and deletes the
// container `one` after it.
func habits(t *testing.T, list ...habit) {
	t.Helper()
	onOCI(t, func(t *testing.T, h *testkit.Host, oci func(string) testkit.Result) {
		ok(t, h.Sh(t, `cp bundle/config.json fresh.json`))
		for _, step := range list {
			r := oci(step.script)
			if r.Stdout != step.want {
				t.Errorf("%s\nprints %q, want %q\n%s", step.script, r.Stdout, step.want, r.Stderr)
			}
			ok(t, oci(`oci delete -f one; cp fresh.json bundle/config.json`))
		}
	})
}

// TestOCIFlagsAfter: flags may follow the id.
func TestOCIFlagsAfter(t *testing.T) {
	habits(t,
		habit{`oci run one -d -b bundle && oci update one --pids-limit 77 && cat /sys/fs/cgroup/pids/one/pids.max /sys/fs/cgroup/one/pids.max 2>/dev/null; oci delete one --force; oci list -q`, "77\n"},
		habit{`oci run -d -b bundle one; oci exec one echo -d --tty; oci ps one -o pid | sed -n 1p`, "-d --tty\n    PID\n"},
	)
}

// TestOCICallersTerminal: a program's terminal is shown on the caller's, line
// by line, and what is redirected is not.
func TestOCICallersTerminal(t *testing.T) {
	onOCI(t, func(t *testing.T, h *testkit.Host, oci func(string) testkit.Result) {
		ok(t, oci(`edit '.process.terminal = true'; program sh -c 'stty size; tty; read x; echo "<$x>"'`))
		run := "shocker-oci --root " + h.Dir + "/oci run -b bundle one"
		term := newTerminal(t, 33, 101)
		before := term.mode()
		cmd := term.start("sh", "-c", run)
		term.expect("33 101\r\n/dev/pts/0\r\n")
		term.types("typed\r")
		term.expect("typed\r\n<typed>\r\n")
		if code := term.ended(cmd); code != 0 {
			t.Errorf("on a terminal: status %d; want 0", code)
		}
		// Only the terminal that controls us is left.
		ok(t, oci(`program sh -c 'stty size; tty'`))
		cmd = term.start("sh", "-c", run+" </dev/null 2>err | cat >out")
		if code := term.ended(cmd); code != 0 {
			t.Errorf("with all redirected: status %d; want 0", code)
		}
		if out, err := os.ReadFile("out"); err != nil || string(out) != "33 101\n/dev/pts/0\n" {
			t.Errorf("with all redirected: %q, %v", out, err)
		}
		if term.mode() != before {
			t.Error("the caller's terminal is not as it was")
		}
		// None at all.
		none := exec.Command("sh", "-c", run)
		none.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if out, err := none.CombinedOutput(); err == nil {
			t.Errorf("without a terminal: %q; want a failure", out)
		}
		if left, err := filepath.Glob("oci/*"); err != nil || len(left) > 0 {
			t.Errorf("without a terminal: left %q, %v", left, err)
		}
	})
}

// TestOCIReadOnlyTmpfs: what belongs on a tmpfs gets there before it becomes
// read-only.
func TestOCIReadOnlyTmpfs(t *testing.T) {
	const ro = `.mounts |= map(if .destination == "/dev" then .options += ["ro"] else . end)
		| .mounts += [{destination: "/run", type: "tmpfs", source: "tmpfs", options: ["ro"]},
			{destination: "/run/in/it", type: "bind", source: "/etc", options: ["bind"]},
			{destination: "/srv", type: "tmpfs", source: "tmpfs", options: ["ro", "tmpcopyup"]},
			{destination: "/mnt", type: "tmpfs", source: "tmpfs", options: ["ro"]},
			{destination: "/mnt", type: "tmpfs", source: "tmpfs", options: ["remount", "rw"]}]
		| .process.cwd = "/run/work" | .linux.devices = [{path: "/run/mydev", type: "c", major: 1, minor: 3}]`
	const look = `program sh -c 'pwd; for d in /dev /run /srv /mnt; do touch $d/x 2>/dev/null && echo $d is writable; done; test -c /run/mydev -a -e /run/in/it/passwd -a -d /dev/pts && echo all there'; oci run -b bundle one`
	const want = "/run/work\n/mnt is writable\nall there\n"
	habits(t,
		habit{`edit '` + ro + `'; ` + look, want},
		habit{`chmod 755 . bundle; edit '` + ro + ` | del(.linux.devices) | .linux.namespaces += [{type: "user"}]
			| .linux.uidMappings = [{hostID: 100000, containerID: 0, size: 65536}] | .linux.gidMappings = .linux.uidMappings'
			program sh -c 'pwd; for d in /dev /run /srv /mnt; do touch $d/x 2>/dev/null && echo $d is writable; done; test -e /run/in/it/passwd -a -d /dev/pts && echo all there'; oci run -b bundle one`, want},
	)
}
