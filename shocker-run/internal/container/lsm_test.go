package container

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/spawn"
)

// A profile or label is put on where the kernel has the module, and refused
// where it does not: a container never runs without what it asks for.
func TestLabels(t *testing.T) {
	root := busyboxRoot(t)
	for _, test := range []struct {
		name   string
		here   bool
		change func(*specs.Spec)
		want   string
	}{
		{"AppArmor", appArmor(), func(s *specs.Spec) { s.Process.ApparmorProfile = "unconfined" }, "unconfined"},
		{"SELinux", selinux(), func(s *specs.Spec) { s.Process.SelinuxLabel = "system_u:system_r:unconfined_t:s0" }, "unconfined_t"},
		{"SELinux of mounts", selinux(), func(s *specs.Spec) { s.Linux.MountLabel = "system_u:object_r:tmp_t:s0" }, ""},
	} {
		spec := config(root, "sh", "-c", "cat /proc/self/attr/current; true")
		test.change(spec)
		o, err := run(t, spec, nil)
		if !test.here {
			if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "is not enabled") {
				t.Errorf("%s: %v; want %v", test.name, err, ErrUnsupported)
			}
			continue
		}
		if err != nil || !strings.Contains(o.out, test.want) {
			t.Errorf("%s: %q, %v; want %q", test.name, o.out, err, test.want)
		}
	}
	c, _ := started(t, config(root), nil)
	p := *c.spec.Process
	p.Args, p.ApparmorProfile = []string{"true"}, "nosuch-profile"
	if _, err := execute(c, &p, Options{}); err == nil {
		t.Error("a profile that does not exist: no error")
	}
	if !appArmor() {
		return
	}
	const name = "shocker-test"
	profile := "profile " + name + " flags=(attach_disconnected,mediate_deleted) { file, capability, deny /secret r, }"
	parse := func(action string) {
		cmd := exec.Command("/usr/sbin/apparmor_parser", "--skip-cache", action)
		cmd.Stdin = strings.NewReader(profile)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("apparmor_parser %s: %v: %s", action, err, out)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "secret"), []byte("told\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	parse("--replace")
	defer parse("--remove")
	for profile, want := range map[string]string{"unconfined": "unconfined\ntold\n", name: name + " (enforce)\n"} {
		spec := config(root, "sh", "-c", "cat /proc/self/attr/current /secret; true")
		spec.Process.ApparmorProfile = profile
		if o, err := run(t, spec, nil); err != nil || o.out != want {
			t.Errorf("under profile %s: %q, %v; want %q", profile, o.out, err, want)
		}
		p.Args, p.ApparmorProfile = []string{"cat", "/secret"}, profile
		if out, err := execute(c, &p, Options{}); err != nil || (out == "told") != (profile != name) {
			t.Errorf("a program of its own under profile %s: %q, %v", profile, out, err)
		}
	}
}

// An attribute is written through a proc on which nothing lies, in a pid
// namespace of the process's own.
func TestLabelIsWrittenToProc(t *testing.T) {
	write := func(path string) error {
		table, err := spawn.NewTable()
		if err != nil {
			t.Fatal(err)
		}
		b := &builder{Table: table}
		defer b.close()
		// Any attribute that needs no module serves for the way to it.
		if err := b.label("name", path, "labelled"); err != nil {
			t.Fatal(err)
		}
		b.Exec("/bin/true", []string{"true"}, nil)
		p, err := table.Start(spawn.Options{Flags: unix.CLONE_NEWPID | unix.CLONE_NEWNS})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if err := p.Started(t.Context()); err != nil {
			return errors.Join(err, p.Kill())
		}
		_, err = p.Wait()
		return err
	}
	if err := write("thread-self/comm"); err != nil {
		t.Errorf("comm of the process itself: %v", err)
	}
	if err := write("thread-self/cwd/etc/hostname"); err == nil {
		t.Error("a way out of proc was taken")
	}
	if _, err := os.Stat("/proc/thread-self/attr/current"); err != nil {
		t.Error(err)
	}
}
