package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/testkit"
)

func withoutDev(s *specs.Spec) {
	s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination == "/dev" })
}

// Devices are there below /dev and elsewhere, with their owners and modes,
// whatever is mounted on /dev.
func TestDevices(t *testing.T) {
	mode := os.FileMode(0o640)
	uid, gid := uint32(33), uint32(44)
	devices := []specs.LinuxDevice{
		{Path: "/dev/mine/zero", Type: "c", Major: 1, Minor: 5, FileMode: &mode, UID: &uid, GID: &gid},
		{Path: "/opt/dev/full", Type: "u", Major: 1, Minor: 7, FileMode: &mode, UID: &uid, GID: &gid},
		{Path: "/opt/loop", Type: "b", Major: 7, Minor: 1},
		{Path: "/opt/pipe", Type: "p"},
	}
	const script = `stat -c '%a %u %g %t,%T %F' /dev/mine/zero /opt/dev/full /opt/loop /opt/pipe /dev/null; head -c 3 /dev/zero | wc -c; readlink /dev/fd; readlink /dev/ptmx; readlink /dev/stdin`
	const want = "640 33 44 1,5 character special file\n640 33 44 1,7 character special file\n666 0 0 7,1 block special file\n666 0 0 0,0 fifo\n" +
		"666 0 0 1,3 character special file\n3\n/proc/self/fd\npts/ptmx\n/proc/self/fd/0"
	for _, userns := range []bool{true, false} {
		for _, dev := range []bool{true, false} {
			root := busyboxRoot(t)
			for range 2 { // the second finds what the first has made
				spec := config(root)
				if !userns {
					withoutUser(spec)
				}
				if !dev {
					withoutDev(spec)
				}
				spec.Linux.Devices = devices
				if got := sh(t, spec, script); got != want {
					t.Errorf("userns %v, tmpfs on /dev %v:\n got %q\nwant %q", userns, dev, got, want)
				}
			}
			entries, err := os.ReadDir(filepath.Join(root, "dev"))
			if err != nil || dev != (len(entries) == 0) {
				t.Errorf("userns %v, tmpfs on /dev %v: the image has %v, %v in /dev", userns, dev, entries, err)
			}
		}
	}
}

// What cannot be had is refused, and nothing of the host is touched.
func TestDevicesRefused(t *testing.T) {
	root := busyboxRoot(t)
	host := filepath.Join(filepath.Dir(root), "hostdev")
	if err := errors.Join(os.Mkdir(host, 0o755), unix.Mknod(filepath.Join(host, "tty"), unix.S_IFCHR|0o666, int(unix.Mkdev(5, 0)))); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "etc/file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, d := range map[string]specs.LinuxDevice{
		"a file is there":      {Path: "/etc/file", Type: "c", Major: 1, Minor: 3},
		"another device":       {Path: "/host/tty", Type: "c", Major: 1, Minor: 3},
		"in the host's":        {Path: "/host/new", Type: "c", Major: 1, Minor: 3},
		"a relative path":      {Path: "dev/x", Type: "c", Major: 1, Minor: 3},
		"no type":              {Path: "/dev/x", Major: 1, Minor: 3},
		"a number that is not": {Path: "/dev/x", Type: "c", Major: 1 << 40},
	} {
		for _, userns := range []bool{true, false} {
			spec := config(root, "true")
			if !userns {
				withoutUser(spec)
			}
			spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/host", Source: host, Options: []string{"bind"}})
			spec.Linux.Devices = []specs.LinuxDevice{d}
			if _, err := run(t, spec, nil); !errors.Is(err, ErrInvalid) {
				t.Errorf("%s, userns %v: %v; want %v", name, userns, err, ErrInvalid)
			}
		}
	}
	if entries, err := os.ReadDir(host); err != nil || len(entries) != 1 {
		t.Errorf("the host's directory has %v, %v", entries, err)
	}
}

// A /dev of the host is taken as it is.
func TestHostDev(t *testing.T) {
	root := busyboxRoot(t)
	host := filepath.Join(filepath.Dir(root), "hostdev")
	if err := os.Mkdir(host, 0o755); err != nil {
		t.Fatal(err)
	}
	spec := config(root, "ls", "/dev")
	withoutDev(spec)
	spec.Mounts = slices.DeleteFunc(spec.Mounts, func(m specs.Mount) bool { return strings.HasPrefix(m.Destination, "/dev/") })
	spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/dev", Source: host, Options: []string{"bind"}})
	if o, err := run(t, spec, nil); err != nil || o.out != "" {
		t.Errorf("%q, %v; want an empty directory", o.out, err)
	}
}

// The terminal is on /dev/console, also where /dev is the image's own and its
// root is read-only.
func TestConsole(t *testing.T) {
	for _, dev := range []bool{true, false} {
		root := busyboxRoot(t)
		spec := config(root, "sh", "-c", "tty; test /dev/console -ef /dev/pts/0 && echo same; echo out > /dev/console")
		if !dev {
			withoutDev(spec)
		}
		spec.Root.Readonly = true
		spec.Process.Terminal = true
		c, err := Create(context.Background(), spec, Options{ID: "test", Bundle: t.TempDir(), MapRoot: true})
		if err != nil {
			t.Fatalf("tmpfs on /dev %v: %v", dev, err)
		}
		if err := c.Start(context.Background()); err != nil {
			t.Fatal(err)
		}
		out, _ := io.ReadAll(c.Console) // EIO, when nobody holds the other side any more
		status, err := c.Wait()
		c.Console.Close()
		c.Close()
		if got := strings.ReplaceAll(string(out), "\r", ""); err != nil || status != 0 || got != "/dev/pts/0\nsame\nout\n" && got != "/dev/console\nsame\nout\n" {
			t.Errorf("tmpfs on /dev %v: %q, status %d, %v", dev, got, status, err)
		}
	}
}

// TestDevicesSwapped: whoever can write to the root lays a link to a file of the
// host where a device has just been made. That file keeps its mode and its owner.
func TestDevicesSwapped(t *testing.T) {
	for _, userns := range []bool{true, false} {
		root := busyboxRoot(t)
		victim, dir := filepath.Join(filepath.Dir(root), "victim"), filepath.Join(root, "opt")
		if err := errors.Join(os.WriteFile(victim, nil, 0o600), os.Mkdir(dir, 0o755), os.Symlink(victim, filepath.Join(root, "link"))); err != nil {
			t.Fatal(err)
		}
		spec := config(root, "true")
		if !userns {
			withoutUser(spec)
		}
		for i := range 200 {
			spec.Linux.Devices = append(spec.Linux.Devices, specs.LinuxDevice{Path: fmt.Sprint("/opt/", i), Type: "c", Major: 1, Minor: 3})
		}
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for i := 0; ; {
				select {
				case <-stop:
					return
				default:
				}
				node := filepath.Join(dir, fmt.Sprint(i))
				if unix.Renameat2(unix.AT_FDCWD, filepath.Join(root, "link"), unix.AT_FDCWD, node, unix.RENAME_EXCHANGE) == nil {
					i = (i + 1) % 200
					_ = errors.Join(os.Remove(filepath.Join(root, "link")), os.Symlink(victim, filepath.Join(root, "link")))
				}
			}
		}()
		for range 20 {
			_, _ = run(t, spec, nil) // it fails, or does not see it
			var st unix.Stat_t
			if err := unix.Stat(victim, &st); err != nil || st.Mode&0o7777 != 0o600 || st.Uid != 0 {
				t.Errorf("userns %v: the host's file has mode %o and owner %d, %v", userns, st.Mode, st.Uid, err)
				break
			}
			testkit.Eventually(t, 10*time.Second, func() error { return os.RemoveAll(dir) }) // what is swapped meanwhile may escape it
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		close(stop)
		<-done
	}
}
