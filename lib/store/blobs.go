package store

import (
	_ "crypto/sha256" // without these two go-digest knows no algorithm
	_ "crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/sys"
)

// Blob is the path of a blob of the layout. The digest must be valid.
func (s *Store) Blob(d digest.Digest) string {
	return filepath.Join(s.OCI(), "blobs", d.Algorithm().String(), d.Encoded())
}

// Index reads index.json of the layout; one that is not there is empty.
func (s *Store) Index() (*ispec.Index, error) {
	index := &ispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ispec.MediaTypeImageIndex,
		Manifests: []ispec.Descriptor{},
	}
	data, err := os.ReadFile(filepath.Join(s.OCI(), ispec.ImageIndexFile))
	if errors.Is(err, fs.ErrNotExist) {
		return index, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, index); err != nil {
		return nil, fmt.Errorf("%s/index.json: %w", s.OCI(), err)
	}
	return index, nil
}

// UpdateIndex changes index.json; commands that do so at once take turns.
func (s *Store) UpdateIndex(change func(*ispec.Index)) (retErr error) {
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
	return sys.WriteFile(filepath.Join(s.OCI(), ispec.ImageIndexFile), data, 0o600, true)
}

// sweepBlobs removes manifests that no image has from the index, and then
// the blobs that no manifest names, also those of one that is not there any
// more: an image lives on its layers, and a pull fetches what is missing.
// Partial downloads are not blobs.
func (s *Store) sweepBlobs(images []*Image) error {
	keep := make(map[digest.Digest]bool)
	err := s.UpdateIndex(func(index *ispec.Index) {
		index.Manifests = slices.DeleteFunc(index.Manifests, func(d ispec.Descriptor) bool {
			return !slices.ContainsFunc(images, func(i *Image) bool { return i.Digest == d.Digest.String() })
		})
	})
	if err != nil {
		return err
	}
	for _, i := range images {
		if i.Digest == "" {
			continue
		}
		d := digest.Digest(i.Digest)
		if err := d.Validate(); err != nil {
			return fmt.Errorf("image %s: %w", i.ID, err)
		}
		data, err := os.ReadFile(s.Blob(d))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("image %s: %w", i.ID, err)
		}
		var m ispec.Manifest
		if err := json.Unmarshal(data, &m); err != nil {
			return fmt.Errorf("image %s: manifest: %w", i.ID, err)
		}
		keep[d] = true
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
		algorithm := filepath.Base(filepath.Dir(path))
		d := digest.NewDigestFromEncoded(digest.Algorithm(algorithm), e.Name())
		if d.Validate() != nil || keep[d] {
			return nil
		}
		return os.Remove(path)
	})
}
