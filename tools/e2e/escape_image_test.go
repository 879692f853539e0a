package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/testkit"
)

// empty fails the test if something came into a directory of the host.
func (a *aim) empty(what, dir string) {
	a.Helper()
	if got := ok(a.T, a.h.Sh(a.T, "find "+dir+" -mindepth 1")); got != "" {
		a.errorf("%s: outside of the container there is now %s", what, got)
		ok(a.T, a.h.Sh(a.T, "find "+dir+" -mindepth 1 -delete"))
	}
}

// TestEscapeLinks: directories of the image are links to the outside, where
// the runtime would make its mounts and nodes (CVE-2026-41579, CVE-2026-47766),
// or somebody makes links of them when they have been looked at
// (CVE-2021-30465, CVE-2023-27561): a hook does. That all is opened beneath the
// root guards us, and that no link may be there where there was none, for which
// the container package has a test that comes before the mounts.
func TestEscapeLinks(t *testing.T) {
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		t.Chdir(h.Dir)
		h.Bin(t)
		outside := filepath.Join(h.Dir, "outside")
		if err := os.Mkdir(outside, 0o777); err != nil {
			t.Fatal(err)
		}
		for _, a := range aims(t, h) {
			if !a.host {
				continue // the same, with less power
			}
			for _, name := range []string{"dev", "proc", "sys", "etc"} {
				dir := h.Busybox(t)
				ok(t, h.Sh(t, fmt.Sprintf("rm -rf %s/%s; ln -s %s %[1]s/%[2]s", dir, name, outside)))
				r := a.prepare(dir, "").run("/bin/true")
				a.empty("/"+name+" is a link", outside)
				if r.Code != 0 && !strings.Contains(r.Stderr, name) {
					a.errorf("/%s is a link: %+v; want it named", name, r)
				}

				if name == "etc" {
					continue
				}
				swap := fmt.Sprintf(`cd "$(sed 's/.*"bundle":"\\([^"]*\\)".*/\\1/')/rootfs" && mv %s old && ln -s %s %[1]s`, name, outside)
				g := a.prepare(h.Busybox(t), fmt.Sprintf(`.hooks.createRuntime = [{"path": "/bin/sh", "args": ["sh", "-c", %s]}]`, jsonString(swap)))
				r = g.run("/bin/true")
				a.empty("/"+name+" becomes a link", outside)
				if r.Code == 0 && a.runtime != "runc" { // that calls such hooks later
					a.errorf("/%s became a link, and the program was started", name)
				}
			}
			// A volume that somebody else has as well.
			volume := filepath.Join(h.Dir, "volume")
			ok(t, h.Sh(t, fmt.Sprintf("rm -rf %s; mkdir -p %[1]s/sub; chmod -R 777 %[1]s", volume)))
			swap := fmt.Sprintf("cd %s && mv sub old && ln -s %s sub", volume, outside)
			g := a.prepare(h.Busybox(t), fmt.Sprintf(`.hooks.createRuntime = [{"path": "/bin/sh", "args": ["sh", "-c", %s]}] |
				.mounts += [{"destination": "/vol", "type": "bind", "source": %q, "options": ["bind"]},
				{"destination": "/vol/sub/deep", "type": "tmpfs", "source": "tmpfs"}]`, jsonString(swap), volume))
			g.run("/bin/touch", "/vol/sub/deep/file")
			a.empty("a volume's directory becomes a link", outside)
		}
	})
}

func jsonString(s string) string { return fmt.Sprintf("%q", s) }

// TestEscapeMasks: what is masked and written to must not be diverted by a
// hostile /dev (CVE-2025-31133), by links in it to /dev/console
// (CVE-2025-52565), or by mounts in /proc (CVE-2025-52881). That the null
// device is the host's, opened and looked at, guards us, and that sysctls are
// written through a descriptor of proc, across no mount.
func TestEscapeMasks(t *testing.T) {
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		t.Chdir(h.Dir)
		h.Bin(t)
		volume := filepath.Join(h.Dir, "volume")
		for _, a := range aims(t, h) {
			ok(t, h.Sh(t, fmt.Sprintf(`rm -rf %s; mkdir -p %[1]s/dev %[1]s/net/ipv4; cd %[1]s
				echo mine >victim; echo mine >net/ipv4/ip_default_ttl; chmod -R a+rwX .
				ln -s /victim dev/null; ln -s /victim dev/console; mkdir dev/pts dev/shm dev/mqueue`, volume)))
			bind := func(name, dest string) string {
				return fmt.Sprintf(`{"destination": %q, "type": "bind", "source": %q, "options": ["rbind"]}`, dest, filepath.Join(volume, name))
			}
			dir := h.Busybox(t)
			ok(t, h.Sh(t, fmt.Sprintf("cd %s; echo secret >etc/secret; touch victim; ln -s /proc/sys/net data", dir)))
			g := a.prepare(dir, `.mounts |= map(select(.destination | startswith("/dev") | not)) | .mounts += [`+bind("dev", "/dev")+","+bind("victim", "/victim")+`]
				| .linux.maskedPaths += ["/etc/secret"]`)
			r := g.run("/bin/cat", "/etc/secret")
			if r.Stdout != "" || strings.Contains(r.Stderr, "mine") {
				a.errorf("a masked file shows %+v", r)
			}
			g = a.prepare(dir, `.mounts += [`+bind("net", "/data")+`] | .linux.sysctl = {"net.ipv4.ip_default_ttl": "33"}`)
			r = g.run("/bin/true")
			if got, err := os.ReadFile(filepath.Join(volume, "net/ipv4/ip_default_ttl")); string(got) != "mine\n" {
				a.errorf("the sysctl was written to a volume's file: %q, %v, %+v", got, err, r)
			}
			if got, err := os.ReadFile(filepath.Join(volume, "victim")); string(got) != "mine\n" {
				a.errorf("the victim holds %q, %v", got, err)
			}
			if a.runtime != "" {
				continue
			}
			g = a.prepare(dir, `.process.terminal = true | .mounts |= map(select(.destination | . == "/dev" or . == "/dev/shm" or . == "/dev/mqueue" | not)) | .mounts |= [`+bind("dev", "/dev")+`] + .
				| .mounts += [`+bind("victim", "/victim")+`]`)
			r = g.run("/bin/cat", "/victim")
			if r.Stdout != "mine\r\n" {
				a.errorf("the file that /dev/console leads to is covered: %+v", r)
			}
		}
	})
}

// TestEscapeDevices: device nodes of the image are the host's devices. That
// the root has none guards us, and where root is the host's the rules of the
// device cgroup.
func TestEscapeDevices(t *testing.T) {
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		t.Chdir(h.Dir)
		h.Bin(t)
		dir := tree(t, h)
		// The host of a test has no devices where its store is; others may.
		ok(t, h.Command(t, "mount", "-o", "remount,bind,dev", h.Store))
		var st unix.Stat_t
		if err := unix.Stat("/dev/loop0", &st); err != nil {
			t.Fatal(err)
		}
		nodes := []string{"/disk", "/bare", "/kmsg"}
		ok(t, h.Sh(t, fmt.Sprintf("cd %s; mknod -m 666 disk b %d %d; mknod -m 666 bare c 1 7; mknod -m 666 kmsg c 1 11", dir, unix.Major(st.Rdev), unix.Minor(st.Rdev))))
		for _, a := range aims(t, h) {
			if a.runtime != "" && !a.host {
				continue // a bundle's root is what its maker says
			}
			g := a.prepare(dir, "")
			r := g.run(append([]string{"/enemy", "open", "/dev/full"}, nodes...)...)
			if !strings.HasPrefix(r.Stdout, "/dev/full is open") {
				a.errorf("the devices of /dev are missing: %+v", r)
			}
			for _, node := range nodes {
				if node == "/bare" && a.host {
					continue // it is among those that may be used
				}
				if strings.Contains(r.Stdout, node+" is open") {
					a.errorf("a node of the image: %s", r.Stdout)
				}
			}
		}
	})
}
