package image

import (
	"os"
	"path/filepath"
	"testing"

	"shocker.sh/lib/btrfs"
	"shocker.sh/lib/store"
	"shocker.sh/lib/testkit"
)

// TestNoSweepWhileMaking: whatever is swept at whatever moment, an image has
// its layers.
func TestNoSweepWhileMaking(t *testing.T) {
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		st, err := store.Open(h.Store, func(string) {})
		if err != nil {
			t.Fatal(err)
		}
		sweep := func() {
			deleted, err := st.SweepLayers()
			if err != nil || len(deleted) > 0 {
				t.Errorf("SweepLayers() = %q, %v; want nothing deleted", deleted, err)
			}
		}
		img, err := build(st, func() (*store.Image, error) {
			sweep()
			return described("dir"), nil
		}, func(path string) error {
			return btrfs.Create(path)
		}, func(img *store.Image) error {
			sweep()
			return st.PutImage(img)
		})
		if err != nil {
			t.Fatal(err)
		}
		sweep()
		if _, err := os.Stat(filepath.Join(h.Store, "layers", img.Top())); err != nil {
			t.Error(err)
		}
		if err := st.RemoveImage(img.ID); err != nil {
			t.Fatal(err)
		}
		if deleted, err := st.SweepLayers(); err != nil || len(deleted) != 1 {
			t.Errorf("SweepLayers() = %q, %v; want the layer of the image that is gone", deleted, err)
		}
	})
}
