package container

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func tree(t *testing.T, files ...string) *os.File {
	t.Helper()
	dir := t.TempDir()
	for _, f := range files {
		name, target, link := strings.Cut(f, " -> ")
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		switch {
		case err != nil:
		case link:
			err = os.Symlink(target, path)
		case strings.HasSuffix(f, "/"):
			err = os.Mkdir(path, 0o755)
		default:
			err = os.WriteFile(path, nil, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func TestResolvePlace(t *testing.T) {
	root := tree(t, "a/b/", "a/file", "up -> ../../../a", "abs -> /a/b", "dangling -> /gone/x", "run/", "var/run -> ../run",
		"loop -> loop", "etc/resolv.conf -> ../run/resolve/stub.conf")
	for _, test := range []struct {
		dest  string
		want  string
		known int
		isDir bool
	}{
		{"/", "", 0, true},
		{"/a/b", "a/b", 2, true},
		{"/a/file", "a/file", 2, false},
		{"/a/new/deep", "a/new/deep", 1, true},
		{"/up/b", "a/b", 2, true},
		{"/abs/../file", "a/file", 2, false},
		{"/../../../a", "a", 1, true},
		{"/dangling", "gone/x", 0, true},
		{"/var/run/x", "run/x", 1, true},
		{"/etc/resolv.conf", "run/resolve/stub.conf", 1, true},
		{"/cover/x/y", "cover/x/y", 0, true},
		{"/a/./b//", "a/b", 2, true},
	} {
		p, err := resolvePlace(root, test.dest, func(p string) bool { return strings.HasPrefix(p, "cover") })
		if err != nil || p.String() != test.want || p.known != test.known || p.known == len(p.elems) && p.isDir != test.isDir {
			t.Errorf("resolvePlace(%q) = %+v, %v; want %+v", test.dest, p, err, test)
		}
	}
	for _, dest := range []string{"/loop", "/a/file/x"} {
		if p, err := resolvePlace(root, dest, func(string) bool { return false }); err == nil {
			t.Errorf("resolvePlace(%q) = %v; want an error", dest, p)
		}
	}
}

// CVE-2026-41579, CVE-2026-47766: the places of the kernel's file systems must
// not be links.
func TestGuardedPlaces(t *testing.T) {
	root := tree(t, "dev -> tmp", "proc -> /etc", "sys -> ../sys2", "etc -> tmp", "tmp/")
	for _, dest := range []string{"/dev", "/dev/shm", "/proc", "/sys", "/etc/hosts", "/tmp/../proc"} {
		if _, err := resolvePlace(root, dest, func(string) bool { return false }); !errors.Is(err, ErrUnsafeMount) {
			t.Errorf("resolvePlace(%q): %v; want %v", dest, err, ErrUnsafeMount)
		}
	}
}
