package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/testkit"
)

// TestEscapeUsers: who a user is comes from hostile files, and from names that
// look like numbers (CVE-2026-30892). Each ends at once, and none becomes root.
// That lib/passwd takes only what is wholly a number guards us, looks at files
// before it opens them, and limits what it reads.
func TestEscapeUsers(t *testing.T) {
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		t.Chdir(h.Dir)
		h.Bin(t)
		const plain = "root:x:0:0::/:/bin/sh\n"
		big := "a:" + strings.Repeat("x:", 4<<20) + "\n"
		for _, test := range []struct {
			what, make string // in the image's /etc
			user, want string // of stdout; "": it is refused
		}{
			{"a line too big for a buffer", "head -c 100000 /dev/zero | tr '\\0' x >passwd; echo >>passwd; echo me:x:7:8::/:/bin/sh >>passwd", "me", "7"},
			{"a FIFO", "rm passwd; mkfifo passwd", "me", ""},
			{"a device that nobody drives", "rm passwd; mknod passwd c 240 7", "me", ""},
			{"a directory", "rm passwd; mkdir passwd", "me", ""},
			{"a link to the host's", "rm passwd; ln -s " + h.Dir + "/passwd passwd", "me", ""},
			{"a link to itself", "rm passwd; ln -s passwd passwd", "me", ""},
			{"a file of 20 MB", "head -c 20000000 /dev/zero >passwd", "me", ""},
			{"uid 2^32", "echo me:x:4294967296:0::/:/bin/sh >passwd", "me", ""},
			{"uid 2^32-1", "echo me:x:4294967295:0::/:/bin/sh >passwd", "me", ""},
			{"uid -1", "echo me:x:-1:0::/:/bin/sh >passwd", "me", ""},
			{"uid 0x0", "echo me:x:0x0:0::/:/bin/sh >passwd", "me", ""},
			{"uid ' 0'", "echo 'me:x: 0:0::/:/bin/sh' >passwd", "me", ""},
			{"no uid", "echo me:x::0::/:/bin/sh >passwd", "me", ""},
			{"a user named 7", "echo 7:x:0:0::/:/bin/sh >passwd", "7", "7"},
			{"too many groups", "awk 'BEGIN { print \"me:x:7:8::/:/bin/sh\" >\"passwd\"; for (i = 1; i < 70000; i++) print \"g\" i \":x:\" i \":me\" >\"group\" }'", "me", ""},
			{"group 2^32", "echo me:x:7:4294967296::/:/bin/sh >passwd", "me", ""},
		} {
			dir := h.Busybox(t)
			ok(t, h.Sh(t, fmt.Sprintf("echo me:x:0:0::/:/bin/sh >%s/passwd; cd %s/etc; %s", h.Dir, dir, test.make)))
			began := time.Now()
			image := strings.TrimSpace(strings.TrimPrefix(h.Must(t, "init", dir), "Created: "))
			r := h.Shocker(t, "run", "--rm", "--network", "none", "-u", test.user, image, "id", "-u")
			if strings.TrimSpace(r.Stdout) != test.want || (r.Code == 0) != (test.want != "") {
				t.Errorf("%s: %+v; want %q", test.what, r, test.want)
			}
			if took := time.Since(began); took > testkit.Patience(30*time.Second) {
				t.Errorf("%s: it took %v", test.what, took)
			}
			h.Must(t, "rmi", image)
		}
		// Fields without end cost no more than the file.
		dir := h.Busybox(t)
		if err := os.WriteFile(filepath.Join(dir, "etc/passwd"), []byte(big+plain), 0o644); err != nil {
			t.Fatal(err)
		}
		image := strings.TrimSpace(strings.TrimPrefix(h.Must(t, "init", dir), "Created: "))
		r := h.Sh(t, "ulimit -v 2000000; exec shocker run --rm --network none -u root "+image+" id -u")
		if r.Stdout != "0\n" {
			t.Errorf("a line of 8 MB: %+v", r)
		}

		id := strings.TrimSpace(h.Must(t, "run", "-d", "--network", "none", image, "sleep", "1000"))
		for _, user := range []string{"-1", "+0", "0x0", " 0", "0 ", "00x", "1e3", "٠", "4294967296", "4294967295", "18446744073709551616", "0:4294967296", "nosuch", "7:nosuch", "\x1b[2J"} {
			r := h.Shocker(t, "exec", "-u", user, id, "id", "-u")
			if r.Code != 125 || r.Stdout != "" || strings.Count(r.Stderr, "\n") != 1 || strings.Contains(r.Stderr, "\x1b") {
				t.Errorf("exec -u %q: %+v; want status 125 and one line", user, r)
			}
		}
		for user, want := range map[string]string{"7": "7", "007": "7", "7:8": "7", "65535": "65535", "root": "0"} {
			if r := h.Shocker(t, "exec", "-u", user, id, "id", "-u"); strings.TrimSpace(r.Stdout) != want {
				t.Errorf("exec -u %q: %+v; want %s", user, r, want)
			}
		}
		// The running program replaces the file.
		h.Must(t, "exec", id, "sh", "-c", "rm /etc/passwd; mkfifo /etc/passwd")
		if r := h.Shocker(t, "exec", "-u", "me", id, "id", "-u"); r.Code != 125 || !strings.Contains(r.Stderr, "not a regular file") {
			t.Errorf("exec -u with a FIFO: %+v", r)
		}
	})
}

// TestEscapeAmounts: an environment and mounts without end are refused in
// bounded time, with a clear line. lib/spawn's table and maxMounts guard us.
func TestEscapeAmounts(t *testing.T) {
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		t.Chdir(h.Dir)
		h.Bin(t)
		for _, a := range aims(t, h) {
			if a.host {
				continue // it makes no difference
			}
			dir := h.Busybox(t)
			for _, test := range []struct {
				what, filter string
				started      bool
				want         string
			}{
				{"12,000 variables of 200 bytes", `.process.env += [range(12000) | "V\(.)=" + ([range(20) | "0123456789"] | add)]`, false, "argument list too long"},
				{"a variable of 200 kB", `.process.env += ["V=" + ([range(20000) | "0123456789"] | add)]`, false, "argument list too long"},
				{"100,000 mounts", `.mounts += [range(100000) | {destination: "/m/\(.)", type: "tmpfs", source: "x"}]`, false, "mounts; there can be 4096"},
				{"3,000 mounts", `.mounts += [range(3000) | {destination: "/m/\(.)", type: "tmpfs", source: "x"}]`, false, "fewer mounts"},
				{"500 mounts", `.mounts += [range(500) | {destination: "/m/\(.)", type: "tmpfs", source: "x"}]`, true, ""},
				{"20,000 masked paths", `.linux.maskedPaths += [range(20000) | "/m/\(.)"]`, false, "paths; there can be 4096"},
			} {
				began := time.Now()
				g := a.prepare(dir, test.filter)
				g.late = true
				// The line has an end of its own: without the guards it has none.
				r := h.Sh(t, fmt.Sprintf("timeout -k 1 %.0f bash -c ", testkit.Patience(time.Minute).Seconds())+quote(g.line(false, "/bin/true")))
				g.remove()
				if (r.Code == 0) != test.started || !strings.Contains(r.Stderr, test.want) || len(r.Stderr) > 2000 {
					a.errorf("%s: %.2000v", test.what, r)
				}
				if took := time.Since(began); took > testkit.Patience(30*time.Second) {
					a.errorf("%s: it took %v", test.what, took)
				}
			}
		}
	})
}

// TestEscapeKeys: the caller's keys are not the container's. The keyring of
// its own that a program gets guards us.
func TestEscapeKeys(t *testing.T) {
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		t.Chdir(h.Dir)
		h.Bin(t)
		dir := tree(t, h)
		runtime.LockOSThread() // whose session our children share; it dies with the goroutine
		if _, err := unix.KeyctlJoinSessionKeyring("escape"); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.AddKey("user", "escape-key", []byte("secret"), unix.KEY_SPEC_SESSION_KEYRING); err != nil {
			t.Fatal(err)
		}
		if r := h.Command(t, dir+"/enemy", "key", "escape-key"); !strings.Contains(r.Stdout, "secret") {
			t.Fatalf("the attack has no target: %+v", r)
		}
		for _, a := range aims(t, h) {
			// The profile would hide the keyring from the enemy's calls.
			g := a.prepare(dir, "del(.linux.seccomp)")
			g.start("/enemy", "wait")
			for range 2 {
				if r := g.exec("", "/enemy", "key", "escape-key"); r.Stdout != "" || r.Code != 0 {
					a.errorf("exec finds the caller's key: %+v", r)
				}
			}
			g.remove()
			if r := g.run("/enemy", "key", "escape-key"); r.Stdout != "" || r.Code != 0 {
				a.errorf("run finds the caller's key: %+v", r)
			}
		}
	})
}

// TestEscapeDescriptors: what the caller has open is not the program's, nor a
// way out for its working directory (CVE-2024-21626). That all descriptors are
// closed before the directory is entered guards us, and that no link of /proc
// leads there.
func TestEscapeDescriptors(t *testing.T) {
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		t.Chdir(h.Dir)
		h.Bin(t)
		dir := tree(t, h)
		const open = "exec 5</ 6</etc/shadow 7<>/dev/null 8</sys/fs/cgroup; "
		for _, a := range aims(t, h) {
			g := a.prepare(dir, "")
			if r := h.Sh(t, open+g.line(false, "/enemy", "descriptors")); r.Stdout != "" || r.Code != 0 {
				a.errorf("run: %+v; want no descriptor", r)
			}
			g.remove()
			g.start("/enemy", "wait")
			command := "shocker"
			if a.runtime != "" {
				command = a.runtime
			}
			if r := h.Sh(t, open+command+" exec "+g.id+" /enemy descriptors"); r.Stdout != "" || r.Code != 0 {
				a.errorf("exec: %+v; want no descriptor", r)
			}
			workdir := "-w"
			if a.runtime != "" {
				workdir = "--cwd"
			}
			for fd := 3; fd < 16; fd++ {
				path := fmt.Sprintf("/proc/self/fd/%d", fd)
				if r := h.Sh(t, fmt.Sprintf("%s %s exec %s %s %s /bin/ls", open, command, workdir, path, g.id)); r.Code == 0 {
					a.errorf("exec enters %s: %+v", path, r)
				}
			}
			g.remove()
			for _, fd := range []int{3, 5, 7, 8, 10} {
				g.filter = fmt.Sprintf(".process.cwd = \"/proc/self/fd/%d\"", fd)
				if r := h.Sh(t, open+g.line(false, "/bin/ls")); r.Code == 0 {
					a.errorf("run enters descriptor %d: %+v", fd, r)
				}
				g.remove()
			}
		}
	})
}
