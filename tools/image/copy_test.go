package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/testkit"
)

// odd makes a directory of all that a directory can hold.
func odd(t *testing.T, dir string) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	for name, mode := range map[string]os.FileMode{
		"plain": 0o644, "setuid": 0o4755, "closed": 0, "-dash": 0o600, "new\nline\xff": 0o600, "old": 0o600, "far": 0o600,
	} {
		check(os.WriteFile(path(name), []byte(name), 0o600))
		check(unix.Chown(path(name), 33, 44))
		check(unix.Chmod(path(name), uint32(mode)))
	}
	check(unix.Setxattr(path("plain"), "user.a", []byte("b\x00c"), 0))
	check(unix.Setxattr(path("plain"), "trusted.t", nil, 0))
	capability := []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00") // CAP_NET_RAW, version 2
	check(unix.Setxattr(path("setuid"), "security.capability", capability, 0))
	check(os.Link(path("plain"), path("hard")))
	check(os.Symlink("/nowhere", path("link")))
	check(os.Lchown(path("link"), 5, 6))
	check(os.Link(path("link"), path("hardlink-of-link")))
	check(unix.Mkfifo(path("fifo"), 0o622))
	check(unix.Mknod(path("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	check(unix.Mknod(path("loop"), unix.S_IFBLK|0o660, int(unix.Mkdev(7, 0))))
	listener, err := net.Listen("unix", path("socket"))
	check(err)
	t.Cleanup(func() { listener.Close() })
	sparse, err := os.Create(path("sparse"))
	check(err)
	_, err = sparse.WriteAt([]byte("middle"), 5<<30)
	check(errors.Join(err, sparse.Truncate(10<<30), sparse.Close()))
	check(os.WriteFile(path("holes-at-the-end"), []byte("x"), 0o600))
	check(os.Truncate(path("holes-at-the-end"), 1<<30))
	check(os.WriteFile(path("only-a-hole"), nil, 0o600))
	check(os.Truncate(path("only-a-hole"), 1<<30))
	deep := path("deep")
	for range 100 {
		deep = filepath.Join(deep, "d")
	}
	check(os.MkdirAll(deep, 0o755))
	check(os.Mkdir(path("sticky"), 0o755))
	check(unix.Chmod(path("sticky"), 0o3777))
	check(os.WriteFile(path("sticky/in"), nil, 0o600))
	check(unix.Chmod(path("sticky"), 0o1000))
	for name, sec := range map[string]int64{"old": -1000, "far": 1 << 33, "sticky": 1, "link": 2} {
		times := []unix.Timespec{{Sec: sec, Nsec: 5}, {Sec: sec, Nsec: 6}}
		check(unix.UtimesNanoAt(unix.AT_FDCWD, path(name), times, unix.AT_SYMLINK_NOFOLLOW))
	}
}

// describe lists what is below dir, a line each.
func describe(t *testing.T, dir string) (lines []string) {
	t.Helper()
	inodes := map[uint64]string{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		rel := path[len(dir):]
		line := fmt.Sprintf("%q %o %d:%d %v", rel, st.Mode, st.Uid, st.Gid, st.Mtim)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			line += fmt.Sprintf(" %d bytes, %v", st.Size, st.Blocks*512 < 1<<20)
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " -> " + target
		case unix.S_IFCHR, unix.S_IFBLK:
			line += fmt.Sprint(" device ", st.Rdev)
		case unix.S_IFSOCK:
			return nil
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			if first := inodes[st.Ino]; first != "" {
				line += " is " + first
			}
			inodes[st.Ino] = rel
		}
		names := make([]byte, 1<<10)
		n, err := unix.Llistxattr(path, names)
		if err != nil {
			return err
		}
		sorted := strings.Split(strings.TrimRight(string(names[:n]), "\x00"), "\x00")
		slices.Sort(sorted)
		for _, name := range sorted {
			value := make([]byte, 1<<10)
			if n, err := unix.Lgetxattr(path, name, value); err == nil {
				line += fmt.Sprintf(" %s=%q", name, value[:n])
			}
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// TestCopyTree: everything comes along, holes as holes; only sockets do not.
func TestCopyTree(t *testing.T) {
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		// From another file system, and on the same.
		for i, from := range []string{filepath.Join(h.Dir, "from"), filepath.Join(h.Store, "from")} {
			to := filepath.Join(h.Store, fmt.Sprint("copy", i))
			for _, dir := range []string{from, to} {
				if err := os.Mkdir(dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			odd(t, from)
			if err := copyTree(t.Context(), from, to); err != nil {
				t.Fatal(err)
			}
			want, got := describe(t, from), describe(t, to)
			for i := range max(len(want), len(got)) {
				if i >= len(want) || i >= len(got) || want[i] != got[i] {
					t.Fatalf("copied\n%s\nto\n%s", strings.Join(want[min(i, len(want)):], "\n"), strings.Join(got[min(i, len(got)):], "\n"))
				}
			}
			middle := make([]byte, 8)
			f, err := os.Open(filepath.Join(to, "sparse"))
			if err == nil {
				_, err = f.ReadAt(middle, 5<<30-1)
				f.Close()
			}
			if err != nil || string(middle) != "\x00middle\x00" {
				t.Errorf("the middle of a sparse file is %q, %v", middle, err)
			}
		}
	})
}

// TestCopyIsInterrupted, also within one file.
func TestCopyIsInterrupted(t *testing.T) {
	dir := t.TempDir()
	in, err := os.Create(filepath.Join(dir, "in"))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := in.Write(slices.Repeat([]byte("x"), 1000)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := copyData(ctx, in, out); !errors.Is(err, context.Canceled) {
		t.Errorf("copyData = %v; want it canceled", err)
	}
}
