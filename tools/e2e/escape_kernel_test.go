package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/testkit"
)

// TestEscapeKernel: files of the kernel that change the host, or make it execute
// a program: core_pattern, sysrq-trigger, release_agent (CVE-2022-0492); and
// what is masked, seen through a proc of the container's own. What is written
// is what is there. That /proc/sys is read-only and /proc masked guards us: the
// kernel then refuses a new proc, also in a nested user namespace.
func TestEscapeKernel(t *testing.T) {
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		t.Chdir(h.Dir)
		h.Bin(t)
		dir := h.Busybox(t)
		ok(t, h.Sh(t, "mkdir "+dir+"/new"))
		const script = `
			same() { x=$(cat $1 2>/dev/null) && echo "$x" 2>/dev/null >$1 && echo "wrote $1"; }
			same /proc/sys/kernel/core_pattern
			same /proc/sys/vm/overcommit_memory
			same /proc/sys/kernel/hostname
			[ ! -e /proc/sysrq-trigger ] || ! echo h 2>/dev/null >/proc/sysrq-trigger || echo sysrq
			for f in $(find / -xdev -name release_agent 2>/dev/null; find /sys -name release_agent 2>/dev/null); do same $f; done
			mount -t tmpfs x /new 2>/dev/null && echo mounted
			mknod /new/x b 7 0 2>/dev/null && cat /new/x >/dev/null 2>&1 && echo "made a device"
			unshare -r -m -p -f sh -c 'mount -t proc x /new 2>/dev/null && echo proc; [ ! -e /new/kcore ] || cat /new/kcore | head -c 1' 2>/dev/null
			unshare -r -m sh -c 'umount /proc/kcore 2>/dev/null && echo unmasked; mount -o remount,rw /proc/sys 2>/dev/null && echo writable' 2>/dev/null
			unshare -r -m sh -c 'for c in memory rdma cpu; do mount -t cgroup -o $c x /new 2>/dev/null && echo cgroup $c; done; for f in /new/release_agent; do [ ! -e $f ] || ! echo >$f || echo agent; done' 2>/dev/null
			cat /proc/kcore 2>/dev/null | head -c 1; head -c 1 /proc/keys 2>/dev/null; ls /sys/firmware
			echo end`
		for _, a := range aims(t, h) {
			g := a.prepare(dir, "")
			if r := g.run("/bin/sh", "-c", script); r.Stdout != "end\n" {
				a.errorf("%+v", r)
			}
		}
	})
}

// TestEscapeTerminal: a program types into its caller's terminal (TIOCSTI). The
// session of its own that it gets guards us, in which the caller's terminal is
// not /dev/tty, and but for shocker-oci the pipes or the terminal of its own.
func TestEscapeTerminal(t *testing.T) {
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		t.Chdir(h.Dir)
		h.Bin(t)
		dir := tree(t, h)
		image := strings.TrimSpace(strings.TrimPrefix(h.Must(t, "init", dir), "Created: "))
		id := strings.TrimSpace(h.Must(t, "run", "-d", "--network", "none", "--userns", "host", image, "/enemy", "wait"))
		oci := (&aim{t, h, "shocker-oci", true}).prepare(dir, "").line(false, "/enemy", "type", "evil")
		for _, test := range []struct {
			line string
			has  string // what is its stdio
		}{
			{"shocker run -i --userns host " + image + " /enemy type evil", "pipes"},
			{"shocker run -it --userns host " + image + " /enemy type evil", "a terminal of its own"},
			{"shocker exec -i " + id + " /enemy type evil", "pipes"},
			{"shocker exec -it " + id + " /enemy type evil", "a terminal of its own"},
			{oci, "the caller's"},
			{oci + " </dev/null >out 2>&1; cat out", "files"},
		} {
			term := newTerminal(t, 24, 80)
			cmd := term.start("sh", "-c", test.line+"; echo st''atus $?")
			shown := term.expect("status 0")
			term.ended(cmd)
			n, err := unix.IoctlGetInt(int(term.slave.Fd()), unix.TIOCINQ)
			if err != nil || n != 0 {
				t.Errorf("%s: %d bytes wait in the caller's terminal, %v", test.line, n, err)
			}
			if test.has != "a terminal of its own" && strings.Contains(shown, "typed") {
				t.Errorf("%s: %q", test.line, shown)
			}
			if strings.Contains(shown, "is a terminal") != (test.has != "pipes" && test.has != "files") {
				t.Errorf("%s: %q; want %s", test.line, shown, test.has)
			}
		}
	})
}

// TestEscapeNothingOfTheImage: our own programs open nothing of an image but
// passwd and group, and execute and load nothing (CVE-2019-14271), nor do they
// read options there or beside it (CVE-2026-40226). The kernel tells who has
// opened what (fanotify(7)).
func TestEscapeNothingOfTheImage(t *testing.T) {
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		t.Chdir(h.Dir)
		h.Bin(t)
		dir := h.Busybox(t)
		ok(t, h.Sh(t, "cd "+dir+`; mkdir -p lib lib64 usr/lib run
			for f in lib/libnss_files.so.2 lib/libc.so.6 lib64/ld-linux-x86-64.so.2 etc/ld.so.preload etc/nsswitch.conf etc/ld.so.cache \
				config.json .shocker shocker.conf .dockerenv .containerenv etc/shocker etc/resolv.conf etc/localtime etc/profile bin/tar; do rm -f $f; echo evil >$f; chmod 755 $f; done`))
		image := strings.TrimSpace(strings.TrimPrefix(h.Must(t, "init", dir), "Created: "))
		for _, f := range []string{".nspawn", "image.nspawn", "config.json", "options"} { // beside the tree
			write(t, filepath.Join(h.Store, "layers", f), "evil")
		}
		fan, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK|unix.FAN_UNLIMITED_QUEUE, unix.O_RDONLY|unix.O_LARGEFILE|unix.O_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fan)
		if err := unix.FanotifyMark(fan, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, unix.FAN_OPEN|unix.FAN_OPEN_EXEC, unix.AT_FDCWD, h.Store); err != nil {
			t.Fatal(err)
		}
		id := strings.TrimSpace(h.Must(t, "run", "-d", "-u", "nobody", image, "/bin/busybox", "sleep", "1000"))
		h.Must(t, "exec", "-u", "root", id, "/bin/busybox", "true")
		h.Must(t, "exec", "-t", id, "/bin/busybox", "true")
		h.Must(t, "inspect", id)
		h.Must(t, "logs", id)
		h.Must(t, "commit", id)
		h.Must(t, "stop", "-t", "1", id)
		h.Must(t, "rm", id)
		opened := map[string]bool{}
		buf := make([]byte, 64<<10)
		for end := time.Now().Add(testkit.Patience(10 * time.Second)); time.Now().Before(end); {
			n, err := unix.Read(fan, buf)
			if err != nil || n <= 0 {
				break
			}
			for at := 0; at < n; {
				e := (*unix.FanotifyEventMetadata)(unsafe.Pointer(&buf[at]))
				at += int(e.Event_len)
				path := make([]byte, unix.PathMax)
				link := fmt.Sprintf("/proc/self/fd/%d", e.Fd)
				if k, err := unix.Readlink(link, path); err == nil {
					// Of a mount in another namespace only what is below it is told.
					name := string(path[:k])
					if _, rest, ok := strings.Cut(name, "/layers/"); ok {
						_, name, _ = strings.Cut(rest, "/")
					} else if _, rest, ok := strings.Cut(name, "/rootfs/"); ok {
						name = rest
					}
					opened[strings.TrimPrefix(name, "/")] = true
				}
				unix.Close(int(e.Fd))
			}
		}
		if !opened["bin/busybox"] || !opened["etc/passwd"] {
			t.Errorf("opened: %v; the test sees nothing", opened)
		}
		for path := range opened {
			if path == "bin/busybox" || path == "etc/passwd" || path == "etc/group" {
				continue
			}
			if st, err := os.Lstat(filepath.Join(dir, path)); err == nil && st.Mode().IsRegular() || strings.HasSuffix(path, "nspawn") {
				t.Errorf("%s of the image was opened", path)
			}
		}
	})
}
