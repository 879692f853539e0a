package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/btrfs"
	"shocker.sh/lib/sys"
)

// Image is what image.json says.
type Image struct {
	ID      string    `json:"-"`      // img_42150: the name of the directory
	Source  string    `json:"source"` // debian:12, or where it was made from
	Created time.Time `json:"created"`
	// Digest of the manifest in oci/; "" for an image that was made here.
	Digest string `json:"digest,omitempty"`
	// Layers from the bottom up, as they are named in layers/. The last is
	// what a container gets a snapshot of.
	Layers []string `json:"layers"`
	Config Config   `json:"config"`
}

// Top is the image's top layer.
func (i *Image) Top() string { return i.Layers[len(i.Layers)-1] }

// PutImage makes the image exist, in one rename, and gives it an id.
func (s *Store) PutImage(img *Image) (retErr error) {
	temp, done, err := s.Temp("image")
	if err != nil {
		return err
	}
	defer func() { retErr = errors.Join(retErr, done()) }()
	dir := temp + "/image"
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := writeImage(dir, img); err != nil {
		return err
	}
	taken, err := s.list("images")
	if err != nil {
		return err
	}
	img.ID, err = take("img_", taken, func(id string) error {
		err := unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, s.Path("images", id), unix.RENAME_NOREPLACE)
		if err != nil {
			return &os.LinkError{Op: "rename", Old: dir, New: s.Path("images", id), Err: err}
		}
		return nil
	})
	return err
}

// ReplaceImage makes id the name of another image; what it was is gone.
func (s *Store) ReplaceImage(id string, img *Image) error {
	img.ID = id
	return writeImage(s.Path("images", id), img)
}

func writeImage(dir string, img *Image) error {
	if len(img.Layers) == 0 {
		return errors.New("an image needs a layer")
	}
	data, err := json.Marshal(img)
	if err != nil {
		return err
	}
	return sys.WriteFile(dir+"/image.json", append(data, '\n'), 0o600, true)
}

// Image returns the image of that id, or ErrNoImage, or ErrDamaged.
func (s *Store) Image(id string) (*Image, error) {
	missing := &notExist{fmt.Sprintf("No image named '%s' exists", id), ErrNoImage}
	if !strings.HasPrefix(id, "img_") || strings.ContainsRune(id, '/') {
		return nil, missing
	}
	data, err := os.ReadFile(s.Path("images", id, "image.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missing
	}
	if err != nil {
		return nil, err
	}
	img := &Image{ID: id}
	err = json.Unmarshal(data, img)
	if err == nil && len(img.Layers) == 0 {
		err = errors.New("image.json names no layer")
	}
	for _, l := range img.Layers {
		if err == nil && (l == "" || strings.ContainsRune(l, '/')) {
			err = fmt.Errorf("image.json names %q as a layer", l)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("image %s %w, remove it with rmi: %w", id, ErrDamaged, err)
	}
	return img, nil
}

// Images lists the images by id. With an error come those that could be read:
// for who looks for one of them that is enough.
func (s *Store) Images() ([]*Image, error) {
	ids, err := s.list("images")
	if err != nil {
		return nil, err
	}
	var images []*Image
	var errs []error
	for _, id := range ids {
		img, err := s.Image(id)
		if errors.Is(err, ErrNoImage) {
			continue // removed meanwhile
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		images = append(images, img)
	}
	return images, errors.Join(errs...)
}

// FindImage returns the image that is called by its id or its source; of
// several with one source the newest. "debian" is "debian:latest", and
// "debian@sha256:..." is whichever has that digest.
func (s *Store) FindImage(called string) (*Image, error) {
	img, err := s.Image(called)
	if err == nil || !errors.Is(err, ErrNoImage) {
		return img, err
	}
	missing := err
	images, err := s.Images()
	if err != nil && !errors.Is(err, ErrDamaged) {
		return nil, err
	}
	_, digest, _ := strings.Cut(called, "@")
	for _, i := range images {
		same := i.Source == called || i.Source == called+":latest" || digest != "" && i.Digest == digest
		if same && (img == nil || i.Created.After(img.Created)) {
			img = i
		}
	}
	if img == nil {
		return nil, missing
	}
	return img, nil
}

// RemoveImage makes an image not exist any more. Its layers and blobs stay
// until Sweep.
func (s *Store) RemoveImage(id string) (retErr error) {
	temp, done, err := s.Temp("image")
	if err != nil {
		return err
	}
	defer func() { retErr = errors.Join(retErr, done()) }()
	return os.Rename(s.Path("images", id), temp+"/image")
}

// PutLayer makes the subvolume at temp the layer of that name, in one step:
// as a read-only snapshot, since one that is read-only cannot be renamed into
// another directory. fs.ErrExist means that the layer is there already.
func (s *Store) PutLayer(temp, name string) error {
	if err := btrfs.SyncFS(temp); err != nil {
		return err
	}
	return btrfs.Snapshot(temp, s.Layer(name), true)
}

// SweepLayers deletes the layers that no image has, and returns their names.
// It does nothing while somebody makes an image.
func (s *Store) SweepLayers() (deleted []string, retErr error) {
	f, err := sys.OpenDir(s.Path("layers"))
	if err != nil {
		return nil, err
	}
	defer func() { retErr = errors.Join(retErr, f.Close()) }()
	err = sys.Flock(f, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	images, err := s.Images()
	if err != nil {
		return nil, err
	}
	layers, err := s.list("layers")
	if err != nil {
		return nil, err
	}
	for _, name := range layers {
		used := slices.ContainsFunc(images, func(i *Image) bool { return slices.Contains(i.Layers, name) })
		if used {
			continue
		}
		if err := btrfs.Delete(s.Layer(name)); err != nil {
			return deleted, err
		}
		deleted = append(deleted, name)
	}
	return deleted, s.sweepBlobs(images)
}
