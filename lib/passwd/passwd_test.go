package passwd

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
)

func image(t *testing.T, passwd, group string) *os.File {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"passwd": passwd, "group": group} {
		if err := os.WriteFile(filepath.Join(dir, "etc", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return opened(t, dir)
}

func opened(t *testing.T, dir string) *os.File {
	t.Helper()
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func TestLookup(t *testing.T) {
	passwd := "root:x:0:0:root:/root:/bin/sh\n" +
		"long:" + strings.Repeat("x", 100_000) + ":7:7::/long:/bin/sh\n" +
		"wrap:x:4294967296:0::/wrap:/bin/sh\n" +
		"4:x:44:45::/four:/bin/sh\n" +
		"web:x:33:33::/var/www:/bin/sh\n"
	root := image(t, passwd, "www:x:33:web\nadm:x:4:root,web\nstaff:x:50:web\n")
	for _, test := range []struct {
		spec string
		want User
	}{
		{"", User{0, 0, []uint32{4}, "/root"}},
		{"root", User{0, 0, []uint32{4}, "/root"}},
		{"web", User{33, 33, []uint32{4, 50}, "/var/www"}},
		{"33", User{33, 33, []uint32{4, 50}, "/var/www"}},
		{"web:staff", User{33, 50, nil, "/var/www"}},
		{"web:7", User{33, 7, nil, "/var/www"}},
		{"web:", User{33, 33, []uint32{4, 50}, "/var/www"}}, // as if there were no colon
		{"5:", User{5, 0, nil, "/"}},
		{"1000", User{1000, 0, nil, "/"}},
		{"4", User{4, 0, nil, "/"}}, // a number is an id, never a name
		{"long", User{7, 7, nil, "/long"}},
	} {
		got, err := Lookup(root, test.spec)
		if err != nil || !reflect.DeepEqual(*got, test.want) {
			t.Errorf("Lookup(%q) = %+v, %v; want %+v", test.spec, got, err, test.want)
		}
	}
}

func TestLookupRefuses(t *testing.T) {
	root := image(t, "root:x:0:0::/:\nwrap:x:4294967296:0::/wrap:/bin/sh\n", "")
	for _, spec := range []string{"nobody", "wrap", "4294967296", "4294967295", "18446744073709551616", "0:nogroup", "-1", "0x0"} {
		if u, err := Lookup(root, spec); err == nil {
			t.Errorf("Lookup(%q) = %+v; want an error", spec, u)
		}
	}
	if _, err := Lookup(root, "nobody"); !errors.Is(err, ErrNoUser) {
		t.Errorf("Lookup of an unknown user: %v; want ErrNoUser", err)
	}
}

func TestHostilePasswd(t *testing.T) {
	fifo := t.TempDir()
	if err := os.Mkdir(filepath.Join(fifo, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(fifo, "etc/passwd"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Lookup(opened(t, fifo), "root"); err == nil {
		t.Error("a FIFO was read as passwd")
	}
	// A link leads to the image's own file, not to the host's.
	link := t.TempDir()
	host := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(host, []byte("intruder:x:0:0::/:\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(link, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(host, filepath.Join(link, "etc/passwd")); err != nil {
		t.Fatal(err)
	}
	if u, err := Lookup(opened(t, link), "intruder"); !errors.Is(err, ErrNoUser) {
		t.Errorf("Lookup through a link = %+v, %v; want ErrNoUser", u, err)
	}
}
