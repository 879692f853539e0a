package trust

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestProgram(t *testing.T) {
	dir := t.TempDir() // below /tmp, which is sticky
	parts := filepath.Join(dir, "parts")
	program := filepath.Join(parts, "shocker-net")
	if err := os.Mkdir(parts, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Program(program); err != nil {
		t.Errorf("Program of root's own: %v", err)
	}
	if err := os.Chmod(program, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Program(program); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("Program of what is not executable: %v; want ErrPermission", err)
	}
	if err := os.Chmod(program, 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(parts, "link")
	if err := os.Symlink("/bin/sh", link); err != nil {
		t.Fatal(err)
	}
	if err := Program(link); err != nil {
		t.Errorf("Program of a link to one: %v", err)
	}
	if err := Program("shocker-net"); !errors.Is(err, ErrNotTrusted) {
		t.Errorf("Program of a relative path: %v; want ErrNotTrusted", err)
	}
	for _, test := range []struct {
		what   string
		change func() error
		back   func() error
	}{
		{"a program that others may write", func() error { return os.Chmod(program, 0o757) }, func() error { return os.Chmod(program, 0o755) }},
		{"a directory that others may write", func() error { return os.Chmod(parts, 0o777) }, func() error { return os.Chmod(parts, 0o755) }},
		{"a sticky directory that others may write", func() error { return os.Chmod(parts, os.ModeSticky|0o777) }, func() error { return os.Chmod(parts, 0o755) }},
		{"a directory above that others may write", func() error { return os.Chmod(dir, 0o777) }, func() error { return os.Chmod(dir, 0o755) }},
		{"somebody's program", func() error { return os.Chown(program, 1000, 0) }, func() error { return os.Chown(program, 0, 0) }},
		{"somebody's directory", func() error { return os.Chown(parts, 1000, 0) }, func() error { return os.Chown(parts, 0, 0) }},
	} {
		if err := test.change(); err != nil {
			t.Fatal(err)
		}
		if err := Program(program); !errors.Is(err, ErrNotTrusted) {
			t.Errorf("Program of %s: %v; want ErrNotTrusted", test.what, err)
		}
		if err := test.back(); err != nil {
			t.Fatal(err)
		}
	}
}
