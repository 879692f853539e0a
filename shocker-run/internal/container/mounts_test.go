package container

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/spawn"
)

// hostDir is a directory of the host that the container's root may pass, with
// a mount of its own below it. Both are private, whatever the machine's are.
func hostDir(t *testing.T, root string) string {
	t.Helper()
	dir := filepath.Join(filepath.Dir(root), "host")
	sub := filepath.Join(dir, "sub")
	if err := os.MkdirAll(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{dir, sub} {
		mount(t, d, d, "", unix.MS_BIND)
		mount(t, "", d, "", unix.MS_PRIVATE)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("from the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func mount(t *testing.T, source, target, kind string, flags uintptr) {
	t.Helper()
	if err := unix.Mount(source, target, kind, flags, ""); err != nil {
		t.Fatal(err)
	}
	if flags&(unix.MS_SHARED|unix.MS_PRIVATE|unix.MS_REMOUNT) != 0 {
		return
	}
	t.Cleanup(func() {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// Every option of a mount, as the container's own mountinfo shows it.
func TestMountOptions(t *testing.T) {
	root := busyboxRoot(t)
	host := hostDir(t, root)
	// The options and the optional fields of the mount on a path.
	const show = `while read id up dev of on options rest; do case "$on" in /m*) rest=" $rest"; echo "$on $options ${rest%% - *}";; esac; done < /proc/self/mountinfo`
	bind := func(options ...string) specs.Mount {
		return specs.Mount{Destination: "/m", Source: host, Options: append([]string{"rbind"}, options...)}
	}
	tmpfs := func(options ...string) specs.Mount {
		return specs.Mount{Destination: "/m", Type: "tmpfs", Source: "tmpfs", Options: options}
	}
	for _, test := range []struct {
		mounts []specs.Mount
		want   string
	}{
		{[]specs.Mount{bind()}, "/m rw\n/m/sub rw"},
		{[]specs.Mount{bind("ro", "nosuid", "nodev", "noexec")}, "/m ro,nosuid,nodev,noexec\n/m/sub rw"},
		{[]specs.Mount{bind("rro", "rnosuid")}, "/m ro,nosuid\n/m/sub ro,nosuid"},
		{[]specs.Mount{bind("rro", "rw")}, "/m ro\n/m/sub ro"},
		{[]specs.Mount{bind("rnodev", "rnoexec", "rnosymfollow")}, "/m rw,nodev,noexec,nosymfollow\n/m/sub rw,nodev,noexec,nosymfollow"},
		{[]specs.Mount{bind("noatime", "nodiratime")}, "/m rw,noatime,nodiratime\n/m/sub rw"},
		{[]specs.Mount{bind("rnoatime")}, "/m rw,noatime\n/m/sub rw,noatime"},
		{[]specs.Mount{{Destination: "/m", Source: host, Options: []string{"bind"}}}, "/m rw"},
		{[]specs.Mount{bind("rprivate")}, "/m rw\n/m/sub rw"},
		{[]specs.Mount{bind("rshared")}, "/m rw shared\n/m/sub rw shared"},
		{[]specs.Mount{bind("shared")}, "/m rw shared\n/m/sub rw"},
		{[]specs.Mount{bind("runbindable")}, "/m rw unbindable\n/m/sub rw unbindable"},
		{[]specs.Mount{tmpfs("ro", "nosuid", "size=64k")}, "/m ro,nosuid"},
		{[]specs.Mount{tmpfs("rro", "shared")}, "/m ro shared"},
		{[]specs.Mount{tmpfs("rw", "strictatime", "sync", "lazytime")}, "/m rw"},
		{[]specs.Mount{tmpfs(), {Destination: "/m", Options: []string{"remount", "ro", "nosuid"}}}, "/m ro,nosuid"},
		{[]specs.Mount{tmpfs("ro"), {Destination: "/m", Options: []string{"remount", "bind", "rw", "noexec"}}}, "/m rw,noexec"},
		{[]specs.Mount{bind("ro"), {Destination: "m/deep/er", Type: "tmpfs"}}, ""},
		{[]specs.Mount{{Destination: "m", Type: "tmpfs"}}, "/m rw"},
	} {
		for _, userns := range []bool{true, false} {
			spec := config(root)
			if !userns {
				withoutUser(spec)
			}
			spec.Mounts = append(spec.Mounts, test.mounts...)
			if test.want == "" {
				// A place that has to be made on a read-only mount.
				if _, err := run(t, spec, nil); err == nil {
					t.Errorf("%+v: no error", test.mounts)
				}
				continue
			}
			got := sh(t, spec, show)
			for _, word := range []string{"relatime"} {
				got = strings.ReplaceAll(got, ","+word, "")
			}
			var lines []string
			for line := range strings.SplitSeq(got, "\n") {
				f := strings.Fields(line)
				for i := range f {
					if i > 1 { // shared:12
						f[i], _, _ = strings.Cut(f[i], ":")
					}
				}
				lines = append(lines, strings.Join(f, " "))
			}
			if got := strings.Join(lines, "\n"); got != test.want {
				t.Errorf("userns %v, %+v:\n got %q\nwant %q", userns, test.mounts, got, test.want)
			}
		}
	}
}

// What the host mounts later appears in a container that asks for it, and what
// the container mounts appears on the host, unless it has a user namespace.
func TestPropagation(t *testing.T) {
	root := busyboxRoot(t)
	host := filepath.Join(filepath.Dir(root), "host")
	if err := os.Mkdir(host, 0o755); err != nil {
		t.Fatal(err)
	}
	mount(t, "tmpfs", host, "tmpfs", 0)
	mount(t, "", host, "", unix.MS_SHARED)
	for _, dir := range []string{"in", "out"} {
		if err := os.Mkdir(filepath.Join(host, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		option        string
		userns        bool
		into, outward bool
	}{
		{"rprivate", false, false, false},
		{"rslave", false, true, false},
		{"bind", false, true, false}, // says nothing
		{"rshared", false, true, true},
		{"rshared", true, true, false},
		{"rslave", true, true, false},
	} {
		spec := config(root)
		if !test.userns {
			withoutUser(spec)
		}
		all := append(spec.Process.Capabilities.Bounding, "CAP_SYS_ADMIN")
		spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
		spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/m", Source: host, Options: []string{"rbind", test.option}})
		_, exec := started(t, spec, nil)
		if err := unix.Mount("tmpfs", filepath.Join(host, "in"), "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		p := *spec.Process
		p.Args = []string{"sh", "-c", "grep -c ' /m/in ' /proc/self/mountinfo; mount -t tmpfs tmpfs /m/out"}
		out, err := exec(&p)
		if err != nil || out != map[bool]string{true: "1", false: "0"}[test.into] {
			t.Errorf("%+v: from the host: %q, %v", test, out, err)
		}
		info, err := os.ReadFile("/proc/self/mountinfo")
		if got := strings.Contains(string(info), " "+host+"/out "); err != nil || got != test.outward {
			t.Errorf("%+v: to the host: %v, %v", test, got, err)
		}
		for _, dir := range []string{"in", "out"} {
			_ = unix.Unmount(filepath.Join(host, dir), unix.MNT_DETACH) // if it is there
		}
	}
}

func TestRootPropagation(t *testing.T) {
	root := busyboxRoot(t)
	for value, want := range map[string]string{
		"": "", "private": "", "rprivate": "", "slave": "", "shared": "shared", "rshared": "shared", "unbindable": "unbindable",
	} {
		spec := config(root)
		spec.Linux.RootfsPropagation = value
		got := sh(t, spec, `while read id up dev of on options rest; do if test "$on" = /; then echo "${rest%%-*}"; fi; done < /proc/self/mountinfo`)
		if got, _, _ = strings.Cut(strings.TrimSpace(got), ":"); got != want && !strings.HasPrefix(got, "master") {
			t.Errorf("rootfsPropagation %q: %q; want %q", value, got, want)
		}
	}
}

func TestIDMappedMounts(t *testing.T) {
	root := busyboxRoot(t)
	host := hostDir(t, root)
	if err := os.Chown(filepath.Join(host, "file"), 1000, 1001); err != nil {
		t.Fatal(err)
	}
	ids := []specs.LinuxIDMapping{{ContainerID: 1000, HostID: firstID + 5, Size: 10}}
	plain := []specs.LinuxIDMapping{{ContainerID: 1000, HostID: 2000, Size: 10}}
	for _, test := range []struct {
		name         string
		userns       bool
		mount        specs.Mount
		file, submnt string
	}{
		{"the container's", true, specs.Mount{Options: []string{"rbind", "idmap"}}, "1000:1001", "65534:65534"},
		{"the container's, recursive", true, specs.Mount{Options: []string{"rbind", "ridmap"}}, "1000:1001", "0:0"},
		{"its own", true, specs.Mount{Options: []string{"bind", "idmap"}, UIDMappings: ids, GIDMappings: ids}, "5:6", ""},
		{"its own, without the option", true, specs.Mount{Options: []string{"bind"}, UIDMappings: ids, GIDMappings: ids}, "5:6", ""},
		{"without a user namespace", false, specs.Mount{Options: []string{"bind", "idmap"}, UIDMappings: plain, GIDMappings: plain}, "2000:2001", ""},
		{"none", true, specs.Mount{Options: []string{"bind"}}, "65534:65534", ""},
		// Of a new file system it maps away all but the one id.
		{"a tmpfs", false, specs.Mount{Type: "tmpfs", Options: []string{"idmap"}, UIDMappings: plain, GIDMappings: plain}, "", "65534:65534"},
	} {
		spec := config(root)
		if !test.userns {
			withoutUser(spec)
		}
		test.mount.Destination, test.mount.Source = "/m", host
		spec.Mounts = append(spec.Mounts, test.mount)
		if test.mount.Type == "tmpfs" {
			spec.Process.Args = []string{"stat", "-c", "%u:%g", "/m"}
			switch r, err := run(t, spec, nil); {
			case !tmpfsMaps(t):
				if err == nil || !strings.Contains(err.Error(), "cannot be id-mapped by this kernel") {
					t.Errorf("%s: %q, %v; want an error that names the kernel", test.name, r.out, err)
				}
			case err != nil || strings.TrimSpace(r.out) != test.submnt:
				t.Errorf("%s: %q, %v; want %s", test.name, r.out+r.errOut, err, test.submnt)
			}
			continue
		}
		if got := sh(t, spec, "stat -c %u:%g /m/file"); got != test.file {
			t.Errorf("%s: %s; want %s", test.name, got, test.file)
		}
		if test.submnt == "" {
			continue
		}
		if got := sh(t, spec, "stat -c %u:%g /m/sub"); got != test.submnt {
			t.Errorf("%s: below it %s; want %s", test.name, got, test.submnt)
		}
	}
	for name, m := range map[string]specs.Mount{
		"no mappings at all": {Options: []string{"bind", "idmap"}},
		"half of them":       {Options: []string{"bind", "idmap"}, UIDMappings: plain},
	} {
		spec := config(root, "true")
		withoutUser(spec)
		m.Destination, m.Source = "/m", host
		spec.Mounts = append(spec.Mounts, m)
		if _, err := run(t, spec, nil); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v; want %v", name, err, ErrInvalid)
		}
	}
}

// tmpfsMaps tells whether this kernel id-maps a tmpfs (6.3).
func tmpfsMaps(t *testing.T) bool {
	t.Helper()
	tree, err := newMount("tmpfs", "tmpfs", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	ids := []specs.LinuxIDMapping{{HostID: firstID, Size: 1}}
	user, err := spawn.UserNamespace(ids, ids)
	if err != nil {
		t.Fatal(err)
	}
	defer user.Close()
	err = setAttr(tree, false, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(user.Fd())})
	if err != nil && !errors.Is(err, unix.EINVAL) {
		t.Fatal(err)
	}
	return err == nil
}

// A tmpfs has the mode of what it covers, and with tmpcopyup its content.
func TestTmpfs(t *testing.T) {
	root := busyboxRoot(t)
	dir := filepath.Join(root, "data")
	for _, d := range []string{dir, dir + "/sub"} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(unix.Chmod(dir, 0o1770), os.WriteFile(dir+"/sub/f", []byte("hello\n"), 0o640), os.Chown(dir+"/sub/f", 33, 44),
		unix.Chmod(dir+"/sub/f", 0o4750), os.Symlink("sub/f", dir+"/link"), unix.Mkfifo(dir+"/pipe", 0o600)); err != nil {
		t.Fatal(err)
	}
	bound := filepath.Join(filepath.Dir(root), "bound")
	if err := errors.Join(os.Mkdir(bound, 0o755), os.Mkdir(bound+"/in", 0o755), os.WriteFile(bound+"/in/g", []byte("bound\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	for _, userns := range []bool{true, false} {
		spec := func(m ...specs.Mount) *specs.Spec {
			s := config(root)
			if !userns {
				withoutUser(s)
			}
			s.Mounts = append(s.Mounts, m...)
			return s
		}
		tmpfs := func(dest string, options ...string) specs.Mount {
			return specs.Mount{Destination: dest, Type: "tmpfs", Source: "tmpfs", Options: options}
		}
		for _, test := range []struct {
			spec         *specs.Spec
			script, want string
		}{
			{spec(tmpfs("/data")), "stat -c %a /data; ls /data", "1770"},
			{spec(tmpfs("/data", "mode=711")), "stat -c %a /data", "711"},
			{spec(tmpfs(fmt.Sprint("/new-", userns))), fmt.Sprint("stat -c %a /new-", userns), "1777"},
			{
				spec(tmpfs("/data", "tmpcopyup", "size=1m")),
				"stat -c %a:%u:%g /data /data/sub /data/sub/f; cat /data/link; test -p /data/pipe && touch /data/new && grep -c ' /data tmpfs' /proc/mounts",
				"1770:0:0\n700:0:0\n4750:33:44\nhello\n1",
			},
			{spec(tmpfs("/data", "tmpcopyup", "ro")), "cat /data/sub/f; touch /data/x", "hello\ntouch: /data/x: Read-only file system"},
			{
				spec(specs.Mount{Destination: "/b", Source: bound, Options: []string{"bind"}}, tmpfs("/b/in", "tmpcopyup")),
				"cat /b/in/g; stat -c %a /b/in", "bound\n755",
			},
		} {
			if got := sh(t, test.spec, test.script); got != test.want {
				t.Errorf("userns %v: %s\n got %q\nwant %q", userns, test.script, got, test.want)
			}
		}
	}
	if _, err := os.Stat(dir + "/new"); err == nil {
		t.Error("what was written to the tmpfs is in the image")
	}
}

// File systems of the host: a disk, and an overlay with more layers than one
// parameter holds.
func TestHostFileSystems(t *testing.T) {
	root := busyboxRoot(t)
	base := filepath.Dir(root)
	image := filepath.Join(base, "disk")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 8<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", image).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	loop, err := exec.Command("losetup", "--find", "--show", image).Output()
	if err != nil {
		t.Fatal(err)
	}
	device := strings.TrimSpace(string(loop))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	var layers []string
	for i := range 12 {
		layer := filepath.Join(base, fmt.Sprint("layer", i))
		if err := errors.Join(os.Mkdir(layer, 0o755), os.WriteFile(filepath.Join(layer, fmt.Sprint("f", i)), nil, 0o644)); err != nil {
			t.Fatal(err)
		}
		layers = append(layers, layer)
	}
	for _, userns := range []bool{true, false} {
		spec := config(root)
		if !userns {
			withoutUser(spec)
		}
		spec.Mounts = append(spec.Mounts,
			specs.Mount{Destination: "/disk", Type: "ext4", Source: device, Options: []string{"ro", "nosuid", "errors=continue"}},
			specs.Mount{Destination: "/over", Type: "overlay", Source: "overlay", Options: []string{"ro", "lowerdir=" + strings.Join(layers, ":")}},
			specs.Mount{Destination: "/few", Type: "overlay", Options: []string{"lowerdir=" + layers[0] + ":" + layers[1]}},
		)
		if got, want := sh(t, spec, "ls /disk; ls /over | wc -l; ls /few | wc -l; touch /over/x; grep -c ' /disk ext4 ro,nosuid' /proc/mounts"), "lost+found\n12\n2\n1\ntouch: /over/x: Read-only file system"; got != want {
			t.Errorf("userns %v: %q; want %q", userns, got, want)
		}
	}
	spec := config(root, "true")
	spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/disk", Type: "ext4", Source: device, Options: []string{"nosuch=1"}})
	if _, err := run(t, spec, nil); err == nil || !strings.Contains(err.Error(), "nosuch") {
		t.Errorf("an unknown option: %v; want an error that names it", err)
	}
}

// TestMaskedTwice: what is masked twice is covered once.
func TestMaskedTwice(t *testing.T) {
	spec := config(busyboxRoot(t), "cat", "/proc/self/mountinfo")
	spec.Linux.MaskedPaths = []string{"/bin", "/proc/keys", "//bin/.", "/proc/keys"}
	spec.Process.Args[0] = "/sbin/cat"
	spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/sbin", Source: filepath.Join(spec.Root.Path, "bin"), Options: []string{"bind"}})
	o, err := run(t, spec, nil)
	for _, path := range []string{" /bin ", " /proc/keys "} {
		if n := strings.Count(o.out, path); err != nil || n != 1 {
			t.Errorf("%d mounts on %s, %v; want 1: %s", n, path, err, o.out)
		}
	}
}

// TestMaskIsReadOnly: what covers a file lies on the host, whose mode and owner
// root inside must not change, and is the null device all the same.
func TestMaskIsReadOnly(t *testing.T) {
	spec := config(busyboxRoot(t))
	spec.Linux.MaskedPaths = []string{"/proc/keys"}
	caps := []string{"CAP_FOWNER", "CAP_CHOWN"}
	spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	got := sh(t, spec, "chmod 666 /proc/keys; chown -h 0:0 /proc/keys; cat /proc/keys; echo >/proc/keys && echo open")
	want := "open\nchmod: /proc/keys: Read-only file system\nchown: /proc/keys: Read-only file system"
	if got != want {
		t.Errorf("%q; want %q", got, want)
	}
}

// A source counts from the bundle; an option that means nothing is a warning.
func TestRelativeSource(t *testing.T) {
	root := busyboxRoot(t)
	bundle := filepath.Dir(root)
	if err := os.WriteFile(filepath.Join(bundle, "f"), []byte("bundle\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	spec := config(root, "cat", "/etc/f")
	spec.Root.Path = "rootfs"
	spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/etc/f", Source: "f", Options: []string{"bind", "mode=755"}})
	var warnings []error
	o, err := run(t, spec, func(o *Options) {
		o.Bundle, o.Warn = bundle, func(err error) { warnings = append(warnings, err) }
	})
	if err != nil || o.out != "bundle\n" || len(warnings) != 1 {
		t.Errorf("%q, %v, warnings %v; want one", o.out, err, warnings)
	}
}

// The source of a bind mount may be what an earlier one has put into the root.
// Links do not lead out of that, neither to the host nor to other mounts of the
// container.
func TestBindOfEarlierMounts(t *testing.T) {
	root := busyboxRoot(t)
	host := hostDir(t, root)
	if err := errors.Join(os.Mkdir(filepath.Join(host, "proc"), 0o755), os.WriteFile(filepath.Join(host, "proc/inside"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"link": "proc", "absolute": "/proc", "climbs": "../../proc", "lost": "/bin"} {
		if err := os.Symlink(target, filepath.Join(host, name)); err != nil {
			t.Fatal(err)
		}
	}
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 2000, Size: 10}}
	bind := func(dest, source string, options ...string) specs.Mount {
		return specs.Mount{Destination: dest, Source: source, Options: append([]string{"rbind"}, options...)}
	}
	for _, userns := range []bool{false, true} {
		spec := config(root)
		if !userns {
			withoutUser(spec)
		}
		spec.Mounts = append(spec.Mounts,
			bind("/m", host),
			bind("/again", root+"/m", "ro"),
			bind("/third", root+"/again/sub/..", "rnosuid"),
			bind("/file", root+"/third/file"),
			bind("/link", root+"/m/link"),
			bind("/absolute", root+"/m/absolute"),
			bind("/climbs", root+"/again/sub/../climbs"),
			specs.Mount{Destination: "/d/e", Type: "tmpfs", Source: "tmpfs"},
			bind("/deep", root+"/d"),
			specs.Mount{Destination: "/flat", Source: root + "/d", Options: []string{"bind"}},
			bind(root+"/below", host), // as runc takes it
		)
		const script = `for f in /again/file /third/file /file /below/file; do cat $f; done; touch /again/new 2>&1; touch /third/new 2>&1
			ls /link /absolute /climbs; for d in /again/sub /third/sub /deep/e /flat/e; do grep -q " $d " /proc/self/mounts && echo $d; done`
		const want = "from the host\nfrom the host\nfrom the host\nfrom the host\n" +
			"touch: /again/new: Read-only file system\ntouch: /third/new: Read-only file system\n" +
			"/absolute:\ninside\n\n/climbs:\ninside\n\n/link:\ninside\n/again/sub\n/third/sub\n/deep/e"
		if got := sh(t, spec, script); got != want {
			t.Errorf("user namespace %v:\n%s\nwant\n%s", userns, got, want)
		}
		lost := *spec
		lost.Mounts = append(slices.Clone(spec.Mounts), bind("/lost", root+"/m/lost"))
		if _, err := run(t, &lost, nil); !errors.Is(err, unix.ENOENT) {
			t.Errorf("a link to what only the container's root has: %v; want %v", err, unix.ENOENT)
		}
		mapped := bind("/mapped", root+"/m", "idmap")
		mapped.UIDMappings, mapped.GIDMappings = ids, ids
		spec.Mounts = append(spec.Mounts, mapped)
		if !userns {
			if got := sh(t, spec, "stat -c %u:%g /mapped/file"); got != "2000:2000" {
				t.Errorf("id-mapped: %s; want 2000:2000", got)
			}
		} else if _, err := run(t, spec, nil); !errors.Is(err, ErrUnsupported) {
			t.Errorf("id-mapped in a user namespace: %v; want %v", err, ErrUnsupported)
		}
	}
}

// A bind mount is one whatever its type says. No sysctl is written into it, and no
// device is made in it.
func TestBindOfAnyType(t *testing.T) {
	root := busyboxRoot(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "sys/kernel/msgmax")
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte("the host's"), 0o666)); err != nil {
		t.Fatal(err)
	}
	spec := config(root)
	withoutUser(spec)
	spec.Linux.Sysctl = map[string]string{"kernel.msgmax": "4242"}
	spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/p", Type: "proc", Source: dir, Options: []string{"bind"}})
	if got := sh(t, spec, "cat /proc/sys/kernel/msgmax /p/sys/kernel/msgmax"); got != "4242\nthe host's" {
		t.Errorf("the sysctl, and the file: %q", got)
	}
	spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/t", Type: "tmpfs", Source: dir, Options: []string{"bind"}})
	spec.Linux.Devices = []specs.LinuxDevice{{Path: "/t/pipe", Type: "p"}}
	if _, err := run(t, spec, nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("a device in it: %v; want %v", err, ErrInvalid)
	}
}

// TestSwappedPlace: what was a directory when the parent looked becomes a link
// before the process mounts there, or makes its working directory
// (CVE-2021-30465, CVE-2023-27561). Nothing is done where it leads.
func TestSwappedPlace(t *testing.T) {
	tmpfs := func(dest string) []specs.Mount {
		return []specs.Mount{{Destination: dest, Type: "tmpfs", Source: "tmpfs"}}
	}
	for _, test := range []struct {
		mounts []specs.Mount
		cwd    string
	}{{tmpfs("/m"), "/"}, {tmpfs("/m/sub"), "/"}, {tmpfs("/m/new/er"), "/"}, {nil, "/m/new"}} {
		root := busyboxRoot(t)
		for _, dir := range []string{"m/sub", "victim/sub"} {
			if err := os.MkdirAll(filepath.Join(root, dir), 0o777); err != nil {
				t.Fatal(err)
			}
		}
		spec := config(root, "true")
		spec.Mounts, spec.Process.Cwd = append(spec.Mounts, test.mounts...), test.cwd
		_, err := run(t, spec, func(o *Options) {
			o.OwnStdio = func(int, int) error { // all is planned, and nothing done
				return errors.Join(os.RemoveAll(filepath.Join(root, "m")), os.Symlink("/victim", filepath.Join(root, "m")))
			}
		})
		if !errors.Is(err, unix.ELOOP) {
			t.Errorf("%v, working directory %s: %v; want ELOOP", test.mounts, test.cwd, err)
		}
		if got, err := os.ReadDir(filepath.Join(root, "victim")); len(got) != 1 || err != nil {
			t.Errorf("%v, working directory %s: in the directory that the link leads to is %v, %v", test.mounts, test.cwd, got, err)
		}
	}
}

// TestCopyUpSwapped: what tmpcopyup copies becomes a device while it does. The
// container gets no content of it, be it a disk of the host.
func TestCopyUpSwapped(t *testing.T) {
	root := busyboxRoot(t)
	dir, zero := filepath.Join(root, "data"), filepath.Join(root, "zero")
	if err := errors.Join(os.Mkdir(dir, 0o755), unix.Mknod(zero, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5)))); err != nil {
		t.Fatal(err)
	}
	const files = 300
	for i := range files {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i = (i + 1) % files {
			select {
			case <-stop:
				return
			default:
			}
			file := filepath.Join(dir, fmt.Sprint(i))
			for range 2 {
				_ = unix.Renameat2(unix.AT_FDCWD, zero, unix.AT_FDCWD, file, unix.RENAME_EXCHANGE)
			}
		}
	}()
	for range 30 {
		spec := config(root, "true")
		spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/data", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup", "size=64k"}})
		if _, err := run(t, spec, nil); errors.Is(err, unix.ENOSPC) {
			t.Errorf("%v: it was filled with what is read from a device", err)
			break
		}
	}
	close(stop)
	<-done
}

// TestMountOnDevice: a device of the image that is in the place of a tmpfs is
// not opened, since that can be all that it needs.
func TestMountOnDevice(t *testing.T) {
	root := busyboxRoot(t)
	// No driver has it: to open it is ENXIO.
	if err := unix.Mknod(filepath.Join(root, "dev-ice"), unix.S_IFCHR|0o600, int(unix.Mkdev(60, 1))); err != nil {
		t.Fatal(err)
	}
	spec := config(root, "true")
	spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/dev-ice", Type: "tmpfs", Source: "tmpfs"})
	if _, err := run(t, spec, nil); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("%v; want ENOTDIR", err)
	}
}
