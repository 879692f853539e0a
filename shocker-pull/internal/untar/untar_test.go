package untar

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/testkit"
)

// The entries of a layer, written short.
func file(name, content string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Uname: content}
}

func dir(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755} }

func link(name, target string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: target}
}

func symlink(name, target string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777}
}

type layer []tar.Header

// pack writes a layer; a file's content is in Uname.
func (l layer) pack(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range l {
		content := h.Uname
		h.Uname = ""
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(content))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); h.Typeflag == tar.TypeReg && err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func extract(t testing.TB, root string, r io.Reader, limits Limits) error {
	t.Helper()
	f, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return Extract(t.Context(), f, r, limits)
}

// tree lists what is below root: "a/b=content", "d/", "l->target".
func tree(t testing.TB, root string) string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		switch d.Type() {
		case fs.ModeDir:
			name += "/"
		case fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			name += "->" + target
		case 0:
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			name += "=" + string(data)
		default:
			name += " " + d.Type().String()
		}
		all = append(all, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func TestLayers(t *testing.T) {
	for _, test := range []struct {
		what   string
		layers []layer
		want   string
	}{
		{"files and implied parents", []layer{{file("a/b/c", "x"), file("d", "y")}}, "a/ a/b/ a/b/c=x d=y"},
		{"names with . and /", []layer{{dir("./"), file("./a", "x"), file("/b", "y"), dir("c//d/")}}, "a=x b=y c/ c/d/"},
		{"a file of a lower layer is replaced", []layer{{file("a", "1")}, {file("a", "2")}}, "a=2"},
		{"the same path twice", []layer{{file("a", "1"), file("a", "2")}}, "a=2"},
		{"a directory becomes a file", []layer{{file("a/b", "1")}, {file("a", "2")}}, "a=2"},
		{"a file becomes a directory", []layer{{file("a", "1")}, {dir("a"), file("a/b", "2")}}, "a/ a/b=2"},
		{"a link becomes a directory", []layer{{dir("d"), symlink("a", "d")}, {dir("a"), file("a/b", "2")}}, "a/ a/b=2 d/"},
		{"a directory becomes a link", []layer{{file("a/b", "1")}, {symlink("a", "c")}}, "a->c"},
		{"a directory keeps what is in it", []layer{{file("a/b", "1")}, {dir("a"), file("a/c", "2")}}, "a/ a/b=1 a/c=2"},
		{"through a link within the root", []layer{{dir("usr/lib"), symlink("lib", "usr/lib")}, {file("lib/x", "1")}}, "lib->usr/lib usr/ usr/lib/ usr/lib/x=1"},
		{"through an absolute link within the root", []layer{{dir("usr/lib"), symlink("lib", "/usr/lib")}, {file("lib/x", "1")}}, "lib->/usr/lib usr/ usr/lib/ usr/lib/x=1"},
		{"through a link to what comes later", []layer{{symlink("lib", "usr/lib"), file("lib/x", "1"), dir("usr/lib"), file("usr/lib/y", "2")}}, "lib->usr/lib usr/ usr/lib/ usr/lib/x=1 usr/lib/y=2"},
		{"through two links to nothing", []layer{{symlink("d/a", "../b/./c/"), symlink("b", "/e"), file("d/a/x/y", "1")}}, "b->/e d/ d/a->../b/./c/ e/ e/c/ e/c/x/ e/c/x/y=1"},
		{"hard links", []layer{{file("a", "1")}, {link("b", "a"), link("c", "/a"), file("a", "2")}}, "a=2 b=1 c=1"},
		{"a hard link to itself", []layer{{file("a", "1"), link("a", "a")}}, "a=1"},
		{"a hard link to a link", []layer{{symlink("a", "x"), link("b", "a")}}, "a->x b->x"},

		{"whiteout", []layer{{file("a", "1"), file("b", "2")}, {file(".wh.a", "")}}, "b=2"},
		{"whiteout of a directory", []layer{{file("a/b/c", "1"), file("d", "2")}, {file(".wh.a", "")}}, "d=2"},
		{"whiteout of nothing", []layer{{file("a", "1")}, {file(".wh.b", "")}}, "a=1"},
		{"whiteout before its own layer's file", []layer{{file("a", "1")}, {file(".wh.a", ""), file("a", "2")}}, "a=2"},
		{"whiteout after its own layer's file", []layer{{file("a", "1")}, {file("a", "2"), file(".wh.a", "")}}, "a=2"},
		{"whiteout after its own layer's directory", []layer{{file("a/b", "1")}, {file("a/c", "2"), file(".wh.a", "")}}, "a/ a/c=2"},
		{"opaque", []layer{{file("a/b", "1"), file("a/c/d", "2")}, {dir("a"), file("a/.wh..wh..opq", ""), file("a/e", "3")}}, "a/ a/e=3"},
		{"opaque at the end", []layer{{file("a/b", "1"), file("a/c/d", "2")}, {dir("a"), file("a/e", "3"), file("a/.wh..wh..opq", "")}}, "a/ a/e=3"},
		{"opaque keeps deep entries", []layer{{file("a/c/d", "2"), file("a/c/x", "3")}, {file("a/c/e", "3"), file("a/.wh..wh..opq", "")}}, "a/ a/c/ a/c/e=3"},
		{"opaque empties a directory that it names", []layer{{file("a/c/d", "2")}, {dir("a/c"), file("a/.wh..wh..opq", "")}}, "a/ a/c/"},
		{"opaque root", []layer{{file("a", "1")}, {file("b", "2"), file(".wh..wh..opq", "")}}, "b=2"},
		{"a directory removed and made again", []layer{{file("a/b", "1")}, {file(".wh.a", ""), file("a/c", "2")}}, "a/ a/c=2"},
		{"devices", []layer{{
			{Name: "p", Typeflag: tar.TypeFifo, Mode: 0o600},
			{Name: "n", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3},
			{Name: "b", Typeflag: tar.TypeBlock, Mode: 0o600, Devmajor: 7, Devminor: 300},
		}}, "b D--------- n Dc--------- p p---------"},
	} {
		root := t.TempDir()
		for _, l := range test.layers {
			if err := extract(t, root, bytes.NewReader(l.pack(t)), Default); err != nil {
				t.Errorf("%s: %v", test.what, err)
			}
		}
		if got := tree(t, root); got != test.want {
			t.Errorf("%s: %s; want %s", test.what, got, test.want)
		}
	}
}

// TestNothingReachesOutside has a file beside the root that no layer may
// touch, read or link to.
func TestNothingReachesOutside(t *testing.T) {
	for _, test := range []struct {
		what   string
		layers []layer
		want   error // of the last layer; nil: it must not fail
	}{
		{"..", []layer{{file("../outside", "x")}}, ErrClimbs},
		{".. in the middle", []layer{{file("a/../../outside", "x")}}, ErrClimbs},
		{"hard link by ..", []layer{{link("a", "../outside")}}, ErrClimbs},
		{"hard link by an absolute path", []layer{{link("a", "/../outside")}}, ErrClimbs},
		{"through a link up to nothing", []layer{{symlink("up", "../../new/dir"), file("up/outside", "x")}}, nil},
		{"links in a circle", []layer{{symlink("a", "b"), symlink("b", "a/c"), file("a/x", "x")}}, unix.ELOOP},
		{"through a link up", []layer{{symlink("up", ".."), file("up/outside", "x")}}, nil},
		{"through an absolute link", []layer{{symlink("etc", "/etc")}, {file("etc/outside", "x")}}, unix.ELOOP},
		{"through an absolute link to a directory", []layer{{dir("etc"), symlink("e", "/etc")}, {file("e/outside", "x")}}, nil},
		{"through a link of a lower layer", []layer{{symlink("up", "../..")}, {file("up/outside", "x")}}, nil},
		{"whiteout through a link", []layer{{symlink("up", "..")}, {file("up/.wh.outside", "")}}, nil},
		{"opaque through a link", []layer{{symlink("up", "..")}, {file("up/.wh..wh..opq", "")}}, nil},
		{"hard link through a link", []layer{{symlink("up", ".."), link("a", "up/outside")}}, unix.ENOENT},
		{"onto a link", []layer{{symlink("a", "../outside")}, {file("a", "x")}}, nil},
		{"a directory onto a link", []layer{{symlink("a", "..")}, {dir("a"), {Name: "a", Typeflag: tar.TypeDir, Mode: 0o700}}}, nil},
	} {
		top := t.TempDir()
		root, outside := filepath.Join(top, "root"), filepath.Join(top, "outside")
		if err := os.Mkdir(root, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(outside, []byte("safe"), 0o644); err != nil {
			t.Fatal(err)
		}
		var err error
		for _, l := range test.layers {
			err = extract(t, root, bytes.NewReader(l.pack(t)), Default)
		}
		if !errors.Is(err, test.want) || test.want == nil && err != nil && !errors.Is(err, unix.ENOENT) {
			t.Errorf("%s: %v; want %v", test.what, err, test.want)
		}
		var st unix.Stat_t
		if err := unix.Stat(outside, &st); err != nil || st.Nlink != 1 || st.Mode&0o777 != 0o644 {
			t.Errorf("%s: the file outside: %d links, mode %o, %v", test.what, st.Nlink, st.Mode, err)
		}
		if data, err := os.ReadFile(outside); err != nil || string(data) != "safe" {
			t.Errorf("%s: the file outside holds %q, %v", test.what, data, err)
		}
		if names, err := os.ReadDir(top); err != nil || len(names) != 2 {
			t.Errorf("%s: beside the root is %v, %v", test.what, names, err)
		}
	}
}

func TestRefused(t *testing.T) {
	deep := strings.Repeat("d/", maxDepth+1)
	for _, test := range []struct {
		what string
		h    tar.Header
		want error
	}{
		{"uid beyond 32 bits", tar.Header{Name: "a", Typeflag: tar.TypeReg, Uid: 1 << 32}, ErrEntry},
		{"gid that means no change", tar.Header{Name: "a", Typeflag: tar.TypeReg, Gid: 1<<32 - 1}, ErrEntry},
		{"negative uid", tar.Header{Name: "a", Typeflag: tar.TypeReg, Uid: -1, Format: tar.FormatGNU}, ErrEntry},
		{"whiteout without a name", file(".wh.", ""), ErrEntry},
		{"whiteout of .", file(".wh..", ""), ErrEntry},
		{"whiteout of ..", file(".wh...", ""), ErrEntry},
		{"root as a file", file(".", "x"), ErrEntry},
		{"root as a link", symlink("/", "x"), ErrEntry},
		{"too deep", file(deep+"a", "x"), ErrLimit},
		{"name too long", file(strings.Repeat("x", maxName+1), ""), ErrLimit},
		{"device number", tar.Header{Name: "a", Typeflag: tar.TypeChar, Devmajor: 1 << 12}, ErrEntry},
		{"hard link to a directory that is not there", link("a", "b/c"), unix.ENOENT},
	} {
		root := t.TempDir()
		err := extract(t, root, bytes.NewReader(layer{test.h}.pack(t)), Default)
		if !errors.Is(err, test.want) {
			t.Errorf("%s: %v; want %v", test.what, err, test.want)
		}
	}
}

func TestLimits(t *testing.T) {
	l := layer{file("a", "1"), file("b", "2"), file("c", strings.Repeat("x", 4000))}.pack(t)
	for _, limits := range []Limits{{2, 1 << 20}, {10, 5000}} {
		if err := extract(t, t.TempDir(), bytes.NewReader(l), limits); !errors.Is(err, ErrLimit) {
			t.Errorf("with the limits %+v: %v; want ErrLimit", limits, err)
		}
	}
}

// TestSparse unpacks what GNU tar makes of files with holes.
func TestSparse(t *testing.T) {
	for _, format := range []string{"gnu", "posix"} {
		dir, root := t.TempDir(), t.TempDir()
		f, err := os.Create(filepath.Join(dir, "f"))
		if err != nil {
			t.Fatal(err)
		}
		const size = 3<<20 + 5
		want := make([]byte, size)
		copy(want[1<<20:], "in the middle")
		copy(want[size-3:], "end")
		for _, at := range []int64{1 << 20, size - 3} {
			if _, err := f.WriteAt(want[at:min(at+13, size)], at); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(os.WriteFile(filepath.Join(dir, "hole"), nil, 0o644), os.Truncate(filepath.Join(dir, "hole"), 1<<20), f.Close()); err != nil {
			t.Fatal(err)
		}
		packed := gnuTar(t, dir, format)
		if len(packed) > 100<<10 {
			t.Fatalf("%s: tar has made no holes: %d bytes", format, len(packed))
		}
		if err := extract(t, root, bytes.NewReader(packed), Default); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(root, "f")); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v; they are others than were packed", format, len(got), err)
		}
		for name, want := range map[string]int64{"f": size, "hole": 1 << 20} {
			var st unix.Stat_t
			if err := unix.Stat(filepath.Join(root, name), &st); err != nil || st.Size != want || st.Blocks*512 > 64<<10 {
				t.Errorf("%s: %s has %d bytes in %d blocks, %v; want %d bytes and holes", format, name, st.Size, st.Blocks, err, want)
			}
		}
		if err := os.Truncate(filepath.Join(dir, "hole"), Default.Bytes+1); err != nil {
			t.Fatal(err)
		}
		if err := extract(t, t.TempDir(), bytes.NewReader(gnuTar(t, dir, format)), Default); !errors.Is(err, ErrLimit) {
			t.Errorf("%s: files of more than the limit: %v; want ErrLimit", format, err)
		}
	}
}

func gnuTar(t *testing.T, dir, format string) []byte {
	t.Helper()
	out, err := exec.Command("tar", "-C", dir, "--sparse", "--format="+format, "-cf", "-", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestDirectoryTimes: what a layer does not say does not depend on when it
// was unpacked.
func TestDirectoryTimes(t *testing.T) {
	root := t.TempDir()
	at := func(h tar.Header, seconds int64) tar.Header {
		h.ModTime = time.Unix(seconds, 0)
		return h
	}
	for _, l := range []layer{
		{at(dir("d"), 100), at(file("d/a", ""), 101), at(dir("e"), 102), at(file("e/a", ""), 103), at(file("f/g/a", ""), 104)},
		{at(file("d/b", ""), 200), at(file("e/.wh.a", ""), 201), at(file("e/c", ""), 202), at(dir("e"), 203), at(file("f/.wh..wh..opq", ""), 204), at(file("f/h/a", ""), 205)},
	} {
		if err := extract(t, root, bytes.NewReader(l.pack(t)), Default); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]int64{"d": 100, "e": 203, "f": 104, "f/h": 205} {
		fi, err := os.Stat(filepath.Join(root, name))
		if err != nil || fi.ModTime().Unix() != want {
			t.Errorf("%s: time %v, %v; want %d", name, fi.ModTime().Unix(), err, want)
		}
	}
}

// TestInterrupted: one file may be as large as a layer.
func TestInterrupted(t *testing.T) {
	l := layer{file("a", strings.Repeat("x", 1<<20))}.pack(t)
	ctx, cancel := context.WithCancel(t.Context())
	read := 0
	r := readerFunc(func(p []byte) (int, error) {
		if read += len(p); read > len(l)/2 {
			cancel()
		}
		return copy(p, l[:min(len(l), 512)]), nil
	})
	root, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := Extract(ctx, root, io.MultiReader(bytes.NewReader(l[:512]), r), Default); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted in a file: %v; want context.Canceled", err)
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestTruncated(t *testing.T) {
	l := layer{file("a", strings.Repeat("x", 4000))}.pack(t)
	for _, n := range []int{100, 600, 3000} {
		if err := extract(t, t.TempDir(), bytes.NewReader(l[:n]), Default); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut after %d bytes: %v; want ErrUnexpectedEOF", n, err)
		}
	}
}

// TestReadsToTheEnd: a digest counts what follows the archive as well.
func TestReadsToTheEnd(t *testing.T) {
	r := bytes.NewReader(append(layer{file("a", "1")}.pack(t), make([]byte, 9000)...))
	if err := extract(t, t.TempDir(), r, Default); err != nil || r.Len() != 0 {
		t.Errorf("Extract: %v, %d bytes not read", err, r.Len())
	}
}

// TestMetadata needs btrfs: not every file system has times of the year 3000.
func TestMetadata(t *testing.T) {
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) { metadataOn(t, h.Store) })
}

func metadataOn(t *testing.T, top string) {
	year3000 := time.Date(3000, 1, 2, 3, 4, 5, 600, time.UTC)
	long := strings.Repeat("long/", 40) + "name"
	xattrs := map[string]string{
		"SCHILY.xattr.user.note":              "a\x00b",
		"SCHILY.xattr.security.selinux":       "not ours to set",
		"SCHILY.xattr.trusted.overlay.opaque": "y",
		"SCHILY.xattr.security.capability":    "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
	}
	root := filepath.Join(top, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	l := layer{
		{Name: "f", Typeflag: tar.TypeReg, Mode: 0o6755, Uid: 33, Gid: 1 << 31, ModTime: year3000, PAXRecords: xattrs, Format: tar.FormatPAX},
		{Name: "d", Typeflag: tar.TypeDir, Mode: 0o1777, Uid: 1, Gid: 2, ModTime: year3000, Format: tar.FormatPAX},
		file("d/later", "x"),
		{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "f", Mode: 0o777, Uid: 5, Gid: 6, ModTime: time.Unix(1, 0)},
		{Name: "old", Typeflag: tar.TypeReg, Mode: 0o600, ModTime: time.Unix(-100, 0), Format: tar.FormatGNU},
		file(long, "y"),
		link("hard", "f"),
	}
	if err := extract(t, root, bytes.NewReader(l.pack(t)), Default); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, want string }{
		{"f", fmt.Sprintf("106755 33:%d %d.000000600", uint32(1<<31), year3000.Unix())},
		{"hard", fmt.Sprintf("106755 33:%d %d.000000600", uint32(1<<31), year3000.Unix())},
		{"d", fmt.Sprintf("41777 1:2 %d.000000600", year3000.Unix())},
		{"l", "120777 5:6 1.000000000"},
		{"old", "100600 0:0 -100.000000000"},
		{long, "100644 0:0 0.000000000"},
	} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(root, test.name), &st); err != nil {
			t.Error(err)
			continue
		}
		got := fmt.Sprintf("%o %d:%d %d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		if got != test.want {
			t.Errorf("%s: %s; want %s", test.name, got, test.want)
		}
	}
	for key, want := range xattrs {
		name := strings.TrimPrefix(key, xattrPrefix)
		value := make([]byte, 100)
		n, err := unix.Lgetxattr(filepath.Join(root, "f"), name, value)
		if foreign(name) {
			if !errors.Is(err, unix.ENODATA) {
				t.Errorf("%s = %q, %v; want none", name, value[:max(n, 0)], err)
			}
			continue
		}
		if err != nil || string(value[:n]) != want {
			t.Errorf("%s = %q, %v; want %q", name, value[:max(n, 0)], err, want)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(root, "long"), &st); err != nil || st.Mode != unix.S_IFDIR|0o755 {
		t.Errorf("an implied directory has mode %o, %v; want 0755", st.Mode, err)
	}
}

func FuzzExtract(f *testing.F) {
	f.Add(layer{dir("a"), file("a/b", "x"), symlink("l", "a"), link("h", "a/b"), file(".wh.a", "")}.pack(f))
	f.Add(layer{file("l/.wh..wh..opq", ""), {Name: "p", Typeflag: tar.TypeFifo}}.pack(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		top := t.TempDir()
		root := filepath.Join(top, "root")
		if err := os.Mkdir(root, 0o755); err != nil {
			t.Fatal(err)
		}
		// Whatever it says of the layer, it stays in the root.
		_ = extract(t, root, bytes.NewReader(data), Limits{1000, 1 << 20})
		if names, err := os.ReadDir(top); err != nil || len(names) != 1 {
			t.Errorf("beside the root: %v, %v", names, err)
		}
	})
}
