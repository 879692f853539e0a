package testkit

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// cacheDir is where scripts/test keeps what takes long to make.
func cacheDir() string {
	return cmp.Or(os.Getenv("SHOCKER_TEST_CACHE"), filepath.Join(cmp.Or(os.Getenv("XDG_CACHE_HOME"), "/var/cache"), "shocker-test"))
}

// debianDir is a root file system made by debootstrap, of Debian 12.
func debianDir() string { return filepath.Join(cacheDir(), "debian-12") }

// Validation is the directory that scripts/validation makes: in bin the
// validation programs of OCI runtime-tools, which have to be run in it.
func Validation() string { return filepath.Join(cacheDir(), "validation") }

// Debian is a directory with the root file system of Debian 12, in which
// apt-get works. It is the one from the cache, read-only.
func (h *Host) Debian(t testing.TB) string {
	t.Helper()
	Requires(t, "debian")
	dir := filepath.Join(h.Dir, "debian")
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	} else if err != nil {
		return dir
	}
	err := mount(debianDir(), dir, "", unix.MS_BIND, "")
	if err == nil {
		err = mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Busybox is a directory with a root file system of the machine's static
// busybox: all its programs, and users root and nobody. It belongs to the
// caller, who may change it.
func (h *Host) Busybox(t testing.TB) string {
	t.Helper()
	Requires(t, "busybox")
	dir, err := os.MkdirTemp(h.Dir, "busybox-")
	if err == nil {
		err = makeBusybox(dir)
	}
	if err != nil {
		t.Fatalf("make a root file system of busybox: %v", err)
	}
	return dir
}

func makeBusybox(dir string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	for _, d := range []string{"bin", "dev", "etc", "home", "proc", "root", "run", "sbin", "sys", "tmp", "usr/bin", "usr/sbin", "var/tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	for _, d := range []string{"tmp", "var/tmp"} {
		if err := os.Chmod(filepath.Join(dir, d), 0o777|os.ModeSticky); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{
		"passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
		"group":  "root:x:0:\nnogroup:x:65534:\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, "etc", name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	program, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	if err := copyFile(program, filepath.Join(dir, "bin/busybox"), 0o755); err != nil {
		return err
	}
	applets, err := exec.Command(program, "--list-full").Output()
	if err != nil {
		return fmt.Errorf("busybox --list-full: %w", err)
	}
	for line := range bytes.Lines(applets) {
		link := filepath.Join(dir, string(bytes.TrimSpace(line)))
		err := os.Symlink("/bin/busybox", link)
		if err != nil && !errors.Is(err, os.ErrExist) { // itself
			return err
		}
	}
	return nil
}

func copyFile(from, to string, mode os.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
