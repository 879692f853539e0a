package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/record"
	"shocker.sh/lib/sys"
	"shocker.sh/lib/testkit"
	"shocker.sh/lib/trust"
	"shocker.sh/lib/undo"
)

// TestResolve: the first directory that has the program decides, also if the
// program there is not fit: then nothing is executed.
func TestResolve(t *testing.T) {
	testkit.Requires(t, "root")
	root := t.TempDir()
	program := func(path string, mode os.FileMode) string {
		t.Helper()
		path = filepath.Join(root, path)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil {
			err = os.WriteFile(path, []byte("#!/bin/sh\n"), 0o600)
		}
		if err == nil {
			err = os.Chmod(path, mode)
		}
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := program("good/shocker-net", 0o755)
	program("other/shocker-net", 0o755)
	program("other/shocker-cg", 0o700)
	program("writable/shocker-net", 0o775)
	program("open/shocker-net", 0o755)
	program("theirs/shocker-net", 0o755)
	program("data/shocker-net", 0o644)
	program("open/below/shocker-net", 0o755)
	for _, err := range []error{
		os.Chmod(filepath.Join(root, "open"), 0o777),
		os.Chown(filepath.Join(root, "theirs/shocker-net"), 33, 0),
		os.Mkdir(filepath.Join(root, "linked"), 0o755),
		os.Symlink(good, filepath.Join(root, "linked/shocker-net")),
		os.Mkdir(filepath.Join(root, "astray"), 0o755),
		os.Symlink(filepath.Join(root, "open/shocker-net"), filepath.Join(root, "astray/shocker-net")),
		os.MkdirAll(filepath.Join(root, "dir/shocker-net"), 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		dirs, name, want string
		err              error
	}{
		{"", "shocker-net", "", nil},
		{"missing", "shocker-net", "", nil},
		{"missing:good:other", "shocker-net", "good/shocker-net", nil},
		{"other:good", "shocker-net", "other/shocker-net", nil},
		{"good:other", "shocker-cg", "other/shocker-cg", nil},
		{"good", "shocker-run", "", nil},
		{"linked", "shocker-net", "linked/shocker-net", nil},
		{"writable:good", "shocker-net", "", trust.ErrNotTrusted},
		{"open:good", "shocker-net", "", trust.ErrNotTrusted},
		{"open/below", "shocker-net", "", trust.ErrNotTrusted},
		{"theirs:good", "shocker-net", "", trust.ErrNotTrusted},
		{"astray:good", "shocker-net", "", trust.ErrNotTrusted},
		{"data:good", "shocker-net", "", os.ErrPermission},
		{"dir:good", "shocker-net", "", os.ErrPermission},
		{"good:writable", "shocker-net", "good/shocker-net", nil}, // not looked at any more
	} {
		var dirs []string
		for dir := range strings.SplitSeq(test.dirs, ":") {
			if dir != "" {
				dirs = append(dirs, filepath.Join(root, dir))
			}
		}
		want := test.want
		if want != "" {
			want = filepath.Join(root, want)
		}
		got, err := Host{Path: strings.Join(dirs, ":")}.Resolve(test.name)
		if got != want || !errors.Is(err, test.err) {
			t.Errorf("Resolve(%s) in %s = %q, %v; want %q, %v", test.name, test.dirs, got, err, want, test.err)
		}
	}
	if _, err := (Host{Path: "parts"}).Resolve("shocker-net"); err == nil || !strings.Contains(err.Error(), "SHOCKER_PATH") {
		t.Errorf("a path that is not absolute: %v", err)
	}
}

// handler is a stage that writes down what it is asked, and fails for some.
type handler struct {
	host  Host
	calls []string
	fail  map[string]error
	up    func(id string)
}

func (h *handler) do(verb string, r *record.Record) error {
	h.calls = append(h.calls, verb+" "+r.ID())
	return h.fail[r.ID()]
}

func (h *handler) Up(_ context.Context, r *record.Record) error {
	if h.up != nil {
		h.up(r.ID())
	}
	if err := h.do(Up, r); err != nil {
		return err
	}
	return r.Set(true, "done")
}

func (h *handler) Down(_ context.Context, r *record.Record) error { return h.do(Down, r) }

func (h *handler) Check(_ context.Context, r *record.Record) error { return h.do(Check, r) }

func line(id string) string {
	return fmt.Sprintf(`{"annotations":{"sh.shocker.id":%q}}`, id) + "\n"
}

// broken is a stdout that nobody reads.
type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, unix.EPIPE }

// TestRun: what every stage does with records, good and bad.
func TestRun(t *testing.T) {
	testkit.Run(t, testkit.Options{NoStore: true}, func(t *testing.T, h *testkit.Host) {
		host := Host{Run: h.RunDir}
		run := func(ctx context.Context, s *handler, verb, in string, out io.Writer) (error, string) {
			var talk bytes.Buffer
			tell := func(err error) { fmt.Fprintln(&talk, err) }
			err := Run(ctx, host, "shocker-x", verb, s, strings.NewReader(in), out, tell)
			return err, talk.String()
		}

		t.Run("one bad record stops no other", func(t *testing.T) {
			s := &handler{fail: map[string]error{"ps_2": errors.Join(errors.New("one"), errors.New("two"))}}
			var out bytes.Buffer
			err, talk := run(t.Context(), s, Up, line("ps_1")+line("ps_2")+"{\n"+line("ps_3")+`{"x":1}`+"\n"+line("ps_4"), &out)
			if !errors.Is(err, ErrRecords) {
				t.Errorf("Run = %v; want ErrRecords", err)
			}
			want := "ps_2: one; two\nrecord at line 3: not a valid record: unexpected end of JSON input\n" +
				"record at line 5: not a valid record: no annotation sh.shocker.id\n"
			if talk != want {
				t.Errorf("it says\n%swant\n%s", talk, want)
			}
			if got := strings.Count(out.String(), `"done":true`); got != 3 || strings.Contains(out.String(), "ps_2") {
				t.Errorf("it passes on\n%s", out.String())
			}
		})
		t.Run("no record is an error", func(t *testing.T) {
			for _, in := range []string{"", "\n\n"} {
				if err, _ := run(t.Context(), &handler{}, Up, in, io.Discard); err == nil {
					t.Errorf("Run of %q succeeds", in)
				}
			}
		})
		t.Run("down and check make nothing", func(t *testing.T) {
			for _, verb := range []string{Down, Check} {
				s := &handler{}
				var out bytes.Buffer
				if err, talk := run(t.Context(), s, verb, line("ps_9"), &out); err != nil || out.String() != line("ps_9") {
					t.Errorf("%s: %v, %s, %s", verb, err, talk, out.String())
				}
				if _, err := os.Stat(host.RunDir("ps_9")); !os.IsNotExist(err) {
					t.Errorf("%s has made a run dir: %v", verb, err)
				}
			}
		})
		t.Run("the work is marked", func(t *testing.T) {
			s := &handler{up: func(id string) {
				if live, died, err := undo.Open(host.RunDir(id)).Working(); !live || died || err != nil {
					t.Errorf("while it works: live %v, died %v, %v", live, died, err)
				}
			}}
			if err, talk := run(t.Context(), s, Up, line("ps_5"), io.Discard); err != nil {
				t.Error(err, talk)
			}
			if live, died, err := undo.Open(host.RunDir("ps_5")).Working(); live || died || err != nil {
				t.Errorf("afterwards: live %v, died %v, %v", live, died, err)
			}
		})
		t.Run("what nobody takes is undone, and the rest left", func(t *testing.T) {
			s := &handler{}
			err, talk := run(t.Context(), s, Up, line("ps_6")+line("ps_7"), broken{})
			if got := strings.Join(s.calls, ", "); got != "up ps_6, down ps_6" {
				t.Errorf("it does %s", got)
			}
			if !errors.Is(err, ErrRecords) || strings.Count(talk, "\n") != 1 || !strings.Contains(talk, "broken pipe") {
				t.Errorf("Run = %v, says %q", err, talk)
			}
		})
		t.Run("who is interrupted does not go on", func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			s := &handler{up: func(string) { cancel() }}
			if err, _ := run(ctx, s, Up, line("ps_8")+line("ps_9"), io.Discard); !errors.Is(err, context.Canceled) {
				t.Errorf("Run = %v; want it canceled", err)
			}
			if got := strings.Join(s.calls, ", "); got != "up ps_8" {
				t.Errorf("it does %s", got)
			}
		})
	})
}

// TestRunDirs: they are made and taken away by many at once, and nobody who
// holds them loses them.
func TestRunDirs(t *testing.T) {
	testkit.Run(t, testkit.Options{NoStore: true}, func(t *testing.T, h *testkit.Host) {
		host := Host{Run: h.RunDir}
		errs := make(chan error, 8)
		for i := range cap(errs) {
			go func() {
				var err error
				for n := 0; n < 50 && err == nil; n++ {
					id := fmt.Sprintf("ps_%d", i)
					var dir string
					if dir, err = host.MakeRun(id); err == nil {
						err = os.WriteFile(filepath.Join(dir, "here"), nil, 0o600)
					}
					err = errors.Join(err, host.RemoveRun(id), host.UnmountRun())
				}
				errs <- err
			}()
		}
		for range cap(errs) {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		if _, err := os.Stat(h.RunDir); !os.IsNotExist(err) {
			t.Errorf("the last one has left %s: %v", h.RunDir, err)
		}
	})
}

// TestRunDirsUnmounted: a command that was killed between making the directory and
// mounting on it leaves it for the next one to take away, if nothing is in it.
func TestRunDirsUnmounted(t *testing.T) {
	host := Host{Run: filepath.Join(t.TempDir(), "run")}
	file := filepath.Join(host.Run, "file")
	if err := errors.Join(os.Mkdir(host.Run, 0o711), os.WriteFile(file, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := host.UnmountRun(); err != nil {
		t.Error(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatalf("what was in it: %v", err)
	}
	if err := host.UnmountRun(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(host.Run); !os.IsNotExist(err) {
		t.Errorf("it was left: %v", err)
	}
}

// TestRunDirsElsewhere: what somebody else has mounted for the run dirs is used,
// and stays.
func TestRunDirsElsewhere(t *testing.T) {
	testkit.Run(t, testkit.Options{NoStore: true}, func(t *testing.T, h *testkit.Host) {
		host := Host{Run: filepath.Join(h.Dir, "own run")}
		if err := os.Mkdir(host.Run, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, ours := range []bool{false, true} {
			if !ours {
				if err := sys.Mount("tmpfs", host.Run, "tmpfs", 0, ""); err != nil {
					t.Fatal(err)
				}
			}
			_, err := host.MakeRun("ps_1")
			if err == nil {
				err = errors.Join(host.RemoveRun("ps_1"), host.UnmountRun())
			}
			if err != nil {
				t.Error(err)
			}
			if mounted, err := sys.IsMountPoint(host.Run); err != nil || mounted == ours {
				t.Errorf("our mount: %v; afterwards it is mounted: %v, %v", ours, mounted, err)
			}
			if err := sys.Unmount(host.Run); err != nil {
				t.Error(err)
			}
		}
	})
}
