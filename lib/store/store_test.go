package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/btrfs"
	"shocker.sh/lib/record"
	"shocker.sh/lib/testkit"
	"shocker.sh/lib/undo"
)

// on opens the store of a test host.
func on(t *testing.T, f func(t *testing.T, s *Store)) {
	t.Helper()
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		s, err := Open(h.Store, func(text string) { t.Errorf("Open of a store on btrfs says %q", text) })
		if err != nil {
			t.Fatal(err)
		}
		f(t, s)
	})
}

func layer(t *testing.T, s *Store, name string) {
	t.Helper()
	temp, done, err := s.Temp("layer")
	if err == nil {
		err = btrfs.Create(filepath.Join(temp, "layer"))
	}
	if err == nil {
		err = s.PutLayer(filepath.Join(temp, "layer"), name)
	}
	if err == nil {
		err = done()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func image(t *testing.T, s *Store, source string, created time.Time, layers ...string) *Image {
	t.Helper()
	img := &Image{Source: source, Created: created, Layers: layers}
	if err := s.PutImage(img); err != nil {
		t.Fatal(err)
	}
	return img
}

func TestImages(t *testing.T) {
	on(t, func(t *testing.T, s *Store) {
		for _, name := range []string{"sha256-a", "sha256-b", "local-c", "local-unused"} {
			layer(t, s, name)
		}
		if err := os.WriteFile(filepath.Join(s.Layer("sha256-a"), "x"), nil, 0o600); err == nil {
			t.Error("a layer can be written to")
		}
		now := time.Now()
		old := image(t, s, "debian:12", now.Add(-time.Hour), "sha256-a")
		newest := image(t, s, "debian:12", now, "sha256-a", "sha256-b")
		latest := image(t, s, "busybox:latest", now, "local-c")
		for called, want := range map[string]string{
			old.ID: old.ID, "debian:12": newest.ID, "busybox": latest.ID, "busybox:latest": latest.ID,
		} {
			if got, err := s.FindImage(called); err != nil || got.ID != want {
				t.Errorf("FindImage(%q) = %+v, %v; want %s", called, got, err, want)
			}
		}
		for _, called := range []string{"img_1", "debian", "../images", "img_../x", "", "debian@sha256:1", "debian@", "@"} {
			if _, err := s.FindImage(called); !errors.Is(err, ErrNoImage) {
				t.Errorf("FindImage(%q): %v; want ErrNoImage", called, err)
			}
		}
		// Nothing is swept while somebody makes an image.
		release, err := s.Use()
		if err != nil {
			t.Fatal(err)
		}
		if deleted, err := s.SweepLayers(); err != nil || len(deleted) != 0 {
			t.Errorf("SweepLayers in use deleted %q, %v", deleted, err)
		}
		if err := release(); err != nil {
			t.Fatal(err)
		}
		if err := s.RemoveImage(newest.ID); err != nil {
			t.Fatal(err)
		}
		deleted, err := s.SweepLayers()
		slices.Sort(deleted)
		if want := []string{"local-unused", "sha256-b"}; err != nil || !slices.Equal(deleted, want) {
			t.Errorf("SweepLayers deleted %q, %v; want %q", deleted, err, want)
		}
		if err := s.ReplaceImage(old.ID, &Image{Source: "mine", Layers: []string{"local-c"}}); err != nil {
			t.Fatal(err)
		}
		if got, err := s.FindImage("mine"); err != nil || got.ID != old.ID {
			t.Errorf("after ReplaceImage: %+v, %v", got, err)
		}
		pinned := &Image{Source: "debian:11", Digest: "sha256:12", Layers: []string{"sha256-a"}}
		if err := s.PutImage(pinned); err != nil {
			t.Fatal(err)
		}
		if got, err := s.FindImage("debian@sha256:12"); err != nil || got.ID != pinned.ID {
			t.Errorf("FindImage by digest: %+v, %v; want %s", got, err, pinned.ID)
		}
	})
}

func TestIDsAndNamesAreTakenOnce(t *testing.T) {
	on(t, func(t *testing.T, s *Store) {
		var mu sync.Mutex
		var ids []string
		var named int
		var wg sync.WaitGroup
		for range 30 {
			wg.Go(func() {
				id, err := s.NewContainer(func(id string) error {
					r, err := record.Parse(fmt.Appendf(nil, `{"annotations":{"sh.shocker.id":%q}}`, id))
					if err != nil {
						return err
					}
					return s.PutContainer(r, func(*undo.Entry) error { return nil })
				})
				nameErr := s.TakeName("web", id)
				mu.Lock()
				defer mu.Unlock()
				if err != nil || nameErr != nil && !errors.Is(nameErr, ErrNameTaken) {
					t.Error(err, nameErr)
				}
				if nameErr == nil {
					named++
				}
				ids = append(ids, id)
			})
		}
		wg.Wait()
		slices.Sort(ids)
		if n := len(slices.Compact(slices.Clone(ids))); n != 30 || named != 1 {
			t.Errorf("%d different ids, %d named web; want 30 and 1", n, named)
		}
		for _, id := range ids {
			if id < "ps_42002" || id > "ps_42254" {
				t.Errorf("%s is not out of the first ids", id)
			}
		}
		if id, err := s.FindContainer("web"); err != nil || !slices.Contains(ids, id) {
			t.Errorf("FindContainer(web) = %q, %v", id, err)
		}
		for i, content := range []string{"", "..", "../images", "ps_1\n"} {
			if err := os.WriteFile(s.Path("names", fmt.Sprint("damaged", i)), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, called := range []string{"ps_1", "..", "a/b", "", "damaged0", "damaged1", "damaged2", "damaged3"} {
			if _, err := s.FindContainer(called); !errors.Is(err, ErrNoContainer) {
				t.Errorf("FindContainer(%q): %v; want ErrNoContainer", called, err)
			}
		}
	})
}

// TestIDsGoOn: when the first ids are in use, it is counted on.
func TestIDsGoOn(t *testing.T) {
	var taken []string
	for n := firstID; n <= lastID; n++ {
		taken = append(taken, fmt.Sprintf("ps_%d", n))
	}
	taken = append(taken, "ps_50000", "other")
	id, err := take("ps_", taken, func(string) error { return nil })
	if err != nil || id != "ps_50001" {
		t.Errorf("take = %q, %v; want ps_50001", id, err)
	}
	tries := 0
	if _, err := take("ps_", nil, func(string) error { tries++; return fs.ErrPermission }); !errors.Is(err, fs.ErrPermission) || tries != 1 {
		t.Errorf("take after an error: %v, %d tries; want it once", err, tries)
	}
}

// TestMakersBeyondTheFirstIDs: many at once, where the first ids are in use.
func TestMakersBeyondTheFirstIDs(t *testing.T) {
	on(t, func(t *testing.T, s *Store) {
		layer(t, s, "local-a")
		for n := firstID; n <= lastID; n++ {
			if n == firstID+100 {
				continue // one is left
			}
			if err := os.Mkdir(s.Path("images", fmt.Sprintf("img_%d", n)), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		ids := make(chan string, 20)
		for range cap(ids) {
			go func() {
				img := &Image{Source: "x:1", Layers: []string{"local-a"}}
				if err := s.PutImage(img); err != nil {
					t.Error(err)
				}
				ids <- img.ID
			}()
		}
		var got, want []string
		for range cap(ids) {
			got = append(got, <-ids)
		}
		slices.Sort(got)
		want = append(want, fmt.Sprintf("img_%d", firstID+100))
		for n := 1; n < cap(ids); n++ {
			want = append(want, fmt.Sprintf("img_%d", lastID+n))
		}
		if !slices.Equal(got, want) {
			t.Errorf("the ids are %q; want %q", got, want)
		}
		if left, err := os.ReadDir(s.Path("tmp")); err != nil || len(left) != 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	})
}

// TestFilesAreNeverCut: who reads a file that others replace sees one of them
// whole, and what a killed writer leaves beside it does not count.
func TestFilesAreNeverCut(t *testing.T) {
	on(t, func(t *testing.T, s *Store) {
		r, err := record.Parse([]byte(`{"annotations":{"sh.shocker.id":"ps_1"}}`))
		if err == nil {
			err = s.PutContainer(r, func(*undo.Entry) error { return nil })
		}
		for _, path := range []string{s.Path("containers", "ps_1", ".new-1"), s.Path("oci", ".new-1"), s.Path("containers", ".new-1")} {
			if err == nil {
				err = os.WriteFile(path, []byte(`{"cut`), 0o600)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		var writers sync.WaitGroup
		done := make(chan struct{})
		for i := range 4 {
			writers.Go(func() {
				for n := range 50 {
					state := &State{ExitStatus: &n, Created: time.Unix(int64(i), 0), OOMKilled: n%2 == 0, Remove: n%2 == 0}
					if n%2 == 0 {
						state.ExitStatus = nil // a shorter one
					}
					if err := s.PutState("ps_1", state); err != nil {
						t.Error(err)
					}
				}
			})
			writers.Go(func() {
				for n := range 10 {
					err := s.UpdateIndex(func(index *Index) {
						index.Manifests = append(index.Manifests, Descriptor{Size: int64(i*10 + n)})
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		go func() {
			writers.Wait()
			close(done)
		}()
		for reading := true; reading; {
			select {
			case <-done:
				reading = false
			default:
			}
			if state, err := s.State("ps_1"); err != nil || state.Created.IsZero() || state.OOMKilled != state.Remove || (state.ExitStatus == nil) != state.Remove {
				if err != nil || state.Created.Unix() < 4 { // not the first one
					t.Fatalf("State = %+v, %v", state, err)
				}
			}
			if _, err := s.Index(); err != nil {
				t.Fatal(err)
			}
		}
		index, err := s.Index()
		if err != nil || len(index.Manifests) != 40 {
			t.Errorf("the index has %d manifests, %v; want all 40", len(index.Manifests), err)
		}
		if ids, err := s.ContainerIDs(); err != nil || !slices.Equal(ids, []string{"ps_1"}) {
			t.Errorf("ContainerIDs = %q, %v", ids, err)
		}
	})
}

func TestSweepTemp(t *testing.T) {
	on(t, func(t *testing.T, s *Store) {
		live, done, err := s.Temp("layer")
		if err != nil {
			t.Fatal(err)
		}
		// One whose maker was killed has no lock.
		dead := s.Path("tmp", "layer-dead")
		if err := os.Mkdir(dead, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := btrfs.Create(filepath.Join(dead, "layer")); err != nil {
			t.Fatal(err)
		}
		if n, err := s.SweepTemp(); n != 1 || err != nil {
			t.Errorf("SweepTemp = %d, %v; want 1", n, err)
		}
		if _, err := os.Stat(live); err != nil {
			t.Errorf("what is being made: %v", err)
		}
		if err := done(); err != nil {
			t.Fatal(err)
		}
		if left, err := os.ReadDir(s.Path("tmp")); err != nil || len(left) != 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	})
}

// TestTempBesideSweep: a sweep may come between the making of a directory and
// its lock. Whoever makes something does not notice.
func TestTempBesideSweep(t *testing.T) {
	on(t, func(t *testing.T, s *Store) {
		stop := make(chan struct{})
		var sweeps sync.WaitGroup
		for range 2 {
			sweeps.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if _, err := s.SweepTemp(); err != nil {
						t.Errorf("SweepTemp: %v", err)
						return
					}
				}
			})
		}
		defer sweeps.Wait()
		defer close(stop)
		for range 3000 {
			path, done, err := s.Temp("container")
			if err == nil {
				err = os.Mkdir(filepath.Join(path, "new"), 0o700)
			}
			if err == nil {
				err = done()
			}
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
}

// TestEmbedded: where there is no btrfs, the store is made in a file, once.
func TestEmbedded(t *testing.T) {
	testkit.Run(t, testkit.Options{NoStore: true}, func(t *testing.T, _ *testkit.Host) {
		root := "/run/embedded" // a tmpfs, whatever the machine has elsewhere
		if err := os.Setenv("SHOCKER_STORE_SIZE", "600000000"); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var said []string
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				_, err := Open(root, func(text string) {
					mu.Lock()
					defer mu.Unlock()
					said = append(said, text)
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(said) != 1 || !strings.Contains(said[0], root+".btrfs") {
			t.Errorf("eight commands at once said %q; want one line", said)
		}
		if on, err := btrfs.Is(root); !on || err != nil {
			t.Errorf("btrfs.Is(%s) = %v, %v", root, on, err)
		}
	})
}

// TestEmbeddedOnce: whoever unmounts the store while something still lives on
// it gets the same file system again, not the file as a second disk.
func TestEmbeddedOnce(t *testing.T) {
	testkit.Run(t, testkit.Options{NoStore: true}, func(t *testing.T, h *testkit.Host) {
		root := "/run/embedded" // a tmpfs, whatever the machine has elsewhere
		if err := os.Setenv("SHOCKER_STORE_SIZE", "600000000"); err != nil {
			t.Fatal(err)
		}
		s, err := Open(root, func(string) {})
		if err != nil {
			t.Fatal(err)
		}
		other := filepath.Join(h.Dir, "other")
		if err := os.Mkdir(other, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(root, other, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		// Not on the disk yet, so only in one cache.
		if err := os.WriteFile(filepath.Join(other, "x"), []byte("content"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := unix.Unmount(root, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(root, func(string) {}); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(s.Path("x")); err != nil || string(got) != "content" {
			t.Errorf("the store mounted again holds %q, %v", got, err)
		}
		if devices := h.Command(t, "losetup", "-n", "-O", "NAME", "-j", root+".btrfs"); len(strings.Fields(devices.Stdout)) != 1 {
			t.Errorf("the file has the loop devices %q; want one", devices.Stdout)
		}
	})
}

// TestEmbeddedKilled: what a killed command left of a store's file is replaced;
// a file that is cut is named.
func TestEmbeddedKilled(t *testing.T) {
	testkit.Run(t, testkit.Options{NoStore: true}, func(t *testing.T, _ *testkit.Host) {
		root := "/run/embedded" // a tmpfs, whatever the machine has elsewhere
		if err := os.Setenv("SHOCKER_STORE_SIZE", "600000000"); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(root+".btrfs.new", []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(root, func(string) {}); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(root + ".btrfs.new"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("what was left is still there: %v", err)
		}
		if err := errors.Join(unix.Unmount(root, 0), os.Truncate(root+".btrfs", 100<<20)); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(root, func(string) {}); err == nil || !strings.Contains(err.Error(), root+".btrfs") {
			t.Errorf("a file that was cut: %v; want it named", err)
		}
	})
}

func TestNestedSubvolumesAreDeleted(t *testing.T) {
	on(t, func(t *testing.T, s *Store) {
		top := s.Path("tmp", "top")
		for _, p := range []string{"", "a", "a/b", "dir/c", "dir/c/d/e"} {
			path := filepath.Join(top, p)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := btrfs.Create(path); err != nil {
				t.Fatal(err)
			}
		}
		if err := btrfs.Delete(top); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(top); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("after Delete: %v", err)
		}
		if err := btrfs.Delete(s.Path("tmp")); !errors.Is(err, btrfs.ErrNotSubvolume) {
			t.Errorf("Delete of a directory: %v; want ErrNotSubvolume", err)
		}
	})
}
