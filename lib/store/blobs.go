package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/sys"
)

// Blob is the path of a blob of the layout. The digest must be valid.
func (s *Store) Blob(digest string) string {
	algorithm, encoded, _ := strings.Cut(digest, ":")
	return filepath.Join(s.OCI(), "blobs", algorithm, encoded)
}

// index is the path of index.json.
func (s *Store) index() string { return filepath.Join(s.OCI(), "index.json") }

// Index reads index.json of the layout; one that is not there is empty.
func (s *Store) Index() (*Index, error) {
	index := &Index{
		SchemaVersion: 2,
		MediaType:     "application/vnd.oci.image.index.v1+json",
		Manifests:     []Descriptor{},
	}
	data, err := os.ReadFile(s.index())
	if errors.Is(err, fs.ErrNotExist) {
		return index, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, index); err != nil {
		return nil, fmt.Errorf("%s: %w", s.index(), err)
	}
	return index, nil
}

// UpdateIndex changes index.json; commands that do so at once take turns.
func (s *Store) UpdateIndex(change func(*Index)) (retErr error) {
	f, err := sys.OpenDir(s.OCI())
	if err != nil {
		return err
	}
	defer func() { retErr = errors.Join(retErr, f.Close()) }()
	if err := sys.Flock(f, unix.LOCK_EX); err != nil {
		return err
	}
	index, err := s.Index()
	if err != nil {
		return err
	}
	change(index)
	data, err := json.Marshal(index)
	if err != nil {
		return err
	}
	return sys.WriteFile(s.index(), data, 0o600, true)
}

// sweepBlobs removes manifests that no image has from the index, and then
// the blobs that no manifest names, also those of one that is not there any
// more: an image lives on its layers, and a pull fetches what is missing.
// Partial downloads are not blobs.
func (s *Store) sweepBlobs(images []*Image) error {
	keep := make(map[string]bool)
	err := s.UpdateIndex(func(index *Index) {
		index.Manifests = slices.DeleteFunc(index.Manifests, func(d Descriptor) bool {
			return !slices.ContainsFunc(images, func(i *Image) bool { return i.Digest == d.Digest })
		})
	})
	if err != nil {
		return err
	}
	for _, i := range images {
		if i.Digest == "" {
			continue
		}
		if _, _, err := splitDigest(i.Digest); err != nil {
			return fmt.Errorf("image %s: %w", i.ID, err)
		}
		data, err := os.ReadFile(s.Blob(i.Digest))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("image %s: %w", i.ID, err)
		}
		var m struct {
			Config Descriptor   `json:"config"`
			Layers []Descriptor `json:"layers"`
		}
		if err := json.Unmarshal(data, &m); err != nil {
			return fmt.Errorf("image %s: manifest: %w", i.ID, err)
		}
		keep[i.Digest] = true
		keep[m.Config.Digest] = true
		for _, l := range m.Layers {
			keep[l.Digest] = true
		}
	}
	return filepath.WalkDir(s.OCI(), func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || e.IsDir() {
			return err
		}
		if strings.HasPrefix(e.Name(), ".new-") {
			return os.Remove(path) // of a command that was killed
		}
		digest := filepath.Base(filepath.Dir(path)) + ":" + e.Name()
		if _, _, err := splitDigest(digest); err != nil || keep[digest] {
			return nil
		}
		return os.Remove(path)
	})
}
