package spec

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestSubvolumeIoctls: of all types and numbers only those of subvolumes are
// refused, whatever is in the rest of the register.
func TestSubvolumeIoctls(t *testing.T) {
	rules := ioctls()
	for low := range uint64(1 << 16) {
		for _, rest := range []uint64{0, 0x50000000, 0xffffffff_50000000, 0xffffffff_ffff0000} {
			arg := rest | low
			allowed := slices.ContainsFunc(rules, func(r specs.LinuxSyscall) bool {
				a := r.Args[0]
				return a.Index == 1 && a.Op == specs.OpMaskedEqual && arg&a.Value == a.ValueTwo && r.Action == specs.ActAllow
			})
			if want := !slices.Contains(subvolumeIoctls, uint16(low)); allowed != want {
				t.Fatalf("ioctl %#x: allowed %v; want %v", arg, allowed, want)
			}
		}
	}
}

func newSpec(caps ...string) *specs.Spec {
	return &specs.Spec{
		Version: ociVersion,
		Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}},
		Linux:   &specs.Linux{},
	}
}

// unconditional says whether a profile names a system call without conditions.
func unconditional(p *specs.LinuxSeccomp, name string) bool {
	return slices.ContainsFunc(p.Syscalls, func(c specs.LinuxSyscall) bool {
		return slices.Contains(c.Names, name) && len(c.Args) == 0 && c.Action == specs.ActAllow
	})
}

func TestSeccompProfiles(t *testing.T) {
	s := newSpec("CAP_SYS_CHROOT")
	if err := setSeccomp(s, ""); err != nil {
		t.Fatal(err)
	}
	p := s.Linux.Seccomp
	if s.Version != ociVersion || !unconditional(p, "chroot") || unconditional(p, "mount") || unconditional(p, "ioctl") || !unconditional(p, "read") {
		t.Errorf("the default profile: %s, %+v", s.Version, p)
	}
	s = newSpec("CAP_SYS_ADMIN")
	if err := setSeccomp(s, seccompDefault); err != nil || !unconditional(s.Linux.Seccomp, "mount") {
		t.Errorf("the default profile with CAP_SYS_ADMIN: %v, %+v", err, s.Linux.Seccomp)
	}
	if err := setSeccomp(s, seccompUnconfined); err != nil {
		t.Error(err)
	}
	dir := t.TempDir()
	for _, test := range []struct{ text, want string }{
		{`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}}]}`, ""},
		{`{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/agent"}`, ""},
		{`{"defaultAction":`, "Decoding seccomp profile"},
		{`{}`, "says nothing"},
	} {
		path := filepath.Join(dir, "profile")
		if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		s := newSpec()
		err := setSeccomp(s, path)
		if test.want != "" {
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("%s: %v; want %q", test.text, err, test.want)
			}
			continue
		}
		if err != nil || unconditional(s.Linux.Seccomp, "mount") || (s.Version == ociVersion) != (s.Linux.Seccomp.ListenerPath == "") {
			t.Errorf("%s: %v, %s, %+v", test.text, err, s.Version, s.Linux.Seccomp)
		}
	}
	if err := setSeccomp(newSpec(), filepath.Join(dir, "nothere")); err == nil || !strings.Contains(err.Error(), "seccomp profile: open") {
		t.Errorf("no such file: %v", err)
	}
}

func TestSecurityOptions(t *testing.T) {
	for _, test := range []struct {
		opt, seccomp string
		newPrivs, ok bool
	}{
		{"seccomp=unconfined", "unconfined", false, true},
		{"seccomp=/a=b", "/a=b", false, true},
		{"no-new-privileges", "", false, true},
		{"no-new-privileges=true", "", false, true},
		{"no-new-privileges=false", "", true, true},
		{"no-new-privileges=", "", false, false},
		{"seccomp", "", false, false},
		{"seccomp=", "", false, false},
		{"apparmor=x", "", false, false},
	} {
		o := &Options{}
		err := o.securityOptions([]string{test.opt})
		if (err == nil) != test.ok || o.Seccomp != test.seccomp || o.NewPrivileges != test.newPrivs {
			t.Errorf("%s: %+v, %v", test.opt, o, err)
		}
	}
}

var update = flag.Bool("update", false, "write the default profile of shocker-run's tests anew")

// TestDefaultIsAhead: what shocker-run has compiled ahead is what we write.
func TestDefaultIsAhead(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		return // the profile names other architectures, and is compiled at a start
	}
	s := newSpec(capabilities...)
	if err := setSeccomp(s, seccompDefault); err != nil {
		t.Fatal(err)
	}
	text, err := json.MarshalIndent(s.Linux.Seccomp, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	const file = "../../../shocker-run/internal/seccomp/testdata/default.json"
	if *update {
		if err := os.WriteFile(file, append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != string(text)+"\n" {
		t.Errorf("%s is another profile; run this test with -update, then go generate in shocker-run/internal/seccomp", file)
	}
}
