package container

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestEnvironment(t *testing.T) {
	for _, test := range []struct {
		env, want []string
		needsHome bool
	}{
		{nil, nil, true},
		{[]string{"A=1", "HOME=/x", "A=2"}, []string{"HOME=/x", "A=2"}, false},
		{[]string{"HOME=/x", "HOME="}, nil, true},
		{[]string{"HOME=", "HOME=/y"}, []string{"HOME=/y"}, false},
		{[]string{"A=", "HOMER=x"}, []string{"A=", "HOMER=x"}, true},
	} {
		if got, needsHome := environment(test.env); !slices.Equal(got, test.want) || needsHome != test.needsHome {
			t.Errorf("environment(%q) = %q, %v; want %q, %v", test.env, got, needsHome, test.want, test.needsHome)
		}
	}
}

// HOME comes from the passwd file that the container sees, mounts included.
func TestHome(t *testing.T) {
	root := busyboxRoot(t)
	write := func(path, text string) string {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write(filepath.Join(root, "etc/passwd"), "root:x:0:0::/root:/bin/sh\nfoo:x:33:33::/srv/foo:/bin/sh\n")
	mounted := write(filepath.Join(t.TempDir(), "passwd"), "foo:x:33:33::/mounted:/bin/sh\n")
	for _, test := range []struct {
		uid   uint32
		env   string
		mount bool
		want  string
	}{
		{0, "A=b", false, "/root"},
		{33, "A=b", false, "/srv/foo"},
		{33, "HOME=", false, "/srv/foo"},
		{33, "HOME=/set", false, "/set"},
		{44, "A=b", false, "/"},
		{33, "A=b", true, "/mounted"},
	} {
		spec := config(root)
		spec.Process.Env = []string{"PATH=/bin", test.env}
		spec.Process.User.UID = test.uid
		if test.mount {
			spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/etc/passwd", Source: mounted, Options: []string{"bind"}})
		}
		if got := sh(t, spec, `echo "$HOME"`); got != test.want {
			t.Errorf("%+v: HOME is %q", test, got)
		}
	}
	// A passwd file that would hold us up is the image's affair.
	if err := os.Remove(filepath.Join(root, "etc/passwd")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(root, "etc/passwd"), 0o644); err != nil {
		t.Fatal(err)
	}
	spec := config(root, "sh", "-c", `echo "$HOME"`)
	spec.Process.Env = []string{"PATH=/bin"}
	var warnings []error
	o, err := run(t, spec, func(o *Options) { o.Warn = func(err error) { warnings = append(warnings, err) } })
	if err != nil || o.out != "/\n" || len(warnings) != 1 {
		t.Errorf("a passwd file that is a pipe: %q, %v, warnings %v; want / and one warning", o.out, err, warnings)
	}
}

// Unknown capabilities, and those that are not to be had, are a warning.
func TestCapabilitiesLeftOut(t *testing.T) {
	root := busyboxRoot(t)
	for _, userns := range []bool{true, false} {
		spec := config(root, "grep", "CapBnd", "/proc/self/status")
		if !userns {
			withoutUser(spec)
		}
		all := []string{"CAP_LUCK"}
		for _, name := range capNames {
			all = append(all, "CAP_"+name)
		}
		spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
		want, err := ownCaps()
		if err != nil {
			t.Fatal(err)
		}
		if last, err := lastCap(); err != nil || userns {
			want = 1<<(last+1) - 1
		}
		var warnings []string
		o, err := run(t, spec, func(o *Options) { o.Warn = func(err error) { warnings = append(warnings, err.Error()) } })
		if err != nil || o.out != fmt.Sprintf("CapBnd:\t%016x\n", want) {
			t.Errorf("userns %v: %q, %v; want %016x", userns, o.out, err, want)
		}
		if len(warnings) != 1 || !strings.Contains(warnings[0], "CAP_LUCK") {
			t.Errorf("userns %v: warnings %q; want one that names CAP_LUCK", userns, warnings)
		}
	}
}

// The caller's files arrive from descriptor 3 up, whatever numbers they have
// here, and nothing else does.
func TestFiles(t *testing.T) {
	root := busyboxRoot(t)
	var files, readers []*os.File
	for range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		defer w.Close()
		files, readers = append(files, w), append(readers, r)
	}
	// The one that is to be 5 has a low number here, and those of 3 and 4 may be
	// anything.
	slices.Reverse(files)
	slices.Reverse(readers)
	spec := config(root, "sh", "-c", "echo a >&3; echo b >&4; echo c >&5; ls /proc/self/fd | wc -l; echo $LISTEN_FDS $LISTEN_PID")
	o, err := run(t, spec, func(o *Options) { o.Files, o.ListenFDs = files, 2 })
	if want := "7\n2 1\n"; err != nil || o.out != want {
		t.Fatalf("%q, %v, %s; want %q", o.out, err, o.errOut, want)
	}
	for i, r := range readers {
		files[i].Close()
		got, err := io.ReadAll(r)
		if want := string("abc"[i]) + "\n"; err != nil || string(got) != want {
			t.Errorf("descriptor %d: %q, %v; want %q", 3+i, got, err, want)
		}
	}
}

func TestKeyring(t *testing.T) {
	root := busyboxRoot(t)
	for _, no := range []bool{false, true} {
		spec := config(root, "cat", "/proc/keys")
		spec.Linux.MaskedPaths = nil
		o, err := run(t, spec, func(o *Options) { o.ID, o.NoKeyring = fmt.Sprint("box-", no), no })
		if err != nil || strings.Contains(o.out, "_ses.box-"+fmt.Sprint(no)) == no {
			t.Errorf("NoKeyring %v: %q, %v", no, o.out, err)
		}
	}
}

// dockerd tells by the words of an error what went wrong.
func TestWords(t *testing.T) {
	root := busyboxRoot(t)
	const notFound, noFile, denied = "executable file not found in $PATH", "no such file or directory", "permission denied"
	if err := os.WriteFile(filepath.Join(root, "bin/plain"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, want string
		change     func(*specs.Spec)
	}{
		{"not in PATH", notFound, func(s *specs.Spec) { s.Process.Args = []string{"nosuch"} }},
		{"not there", noFile, func(s *specs.Spec) { s.Process.Args = []string{"/nosuch"} }},
		{"not executable", denied, func(s *specs.Spec) { s.Process.Args = []string{"/bin/plain"} }},
		{"sysctl", "", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net.no.such": "1"} }},
		{"bind", "", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Source: "/no/such", Options: []string{"bind"}})
		}},
		{"root", "", func(s *specs.Spec) { s.Root.Path = "/no/such" }},
		{"namespace", "", func(s *specs.Spec) { setPath(s, specs.NetworkNamespace, "/no/such") }},
	} {
		spec := config(root, "true")
		test.change(spec)
		_, err := run(t, spec, nil)
		if err == nil {
			t.Errorf("%s: no error", test.name)
			continue
		}
		for _, words := range []string{notFound, noFile, denied} {
			if got := strings.Contains(err.Error(), words); got != (words == test.want) {
				t.Errorf("%s: %q; want only %q in it", test.name, err, test.want)
			}
		}
	}
	spec := config("/no/such", "true")
	if _, err := run(t, spec, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v; want it to be %v", err, os.ErrNotExist)
	}
}
