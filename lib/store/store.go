// Package store is the layout of Shocker's files on btrfs. All of it is plain
// files and subvolumes that other tools read:
//
//	oci/                 an OCI image layout: blobs and index.json
//	layers/ALGO-CHAINID/ read-only subvolume: the tree after that layer
//	       local-UUID/   the same for a layer that was made here
//	images/img_42150/    image.json
//	containers/ps_42045/ rootfs/ (subvolume), config.json, state.json, log
//	names/NAME           the id of the container that has the name
//	partial/             blobs that were cut, each locked by who goes on with it
//	tmp/                 what is being made; each entry is locked by its maker
//
// A file is replaced by rename, a thing exists from one rename on, and an id or
// a name is taken by mkdir or link: there is no global lock.
package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/btrfs"
	"shocker.sh/lib/sys"
)

// Store is the store in one directory.
type Store struct{ root string }

var dirs = []string{"oci", "layers", "images", "containers", "names", "volumes", "tmp"}

// Open returns the store at root. Where there is none it is made: in place if
// root lies on btrfs, else in a sparse file ROOT.btrfs that is loop-mounted.
// talk gets a line about that.
func Open(root string, talk func(string)) (*Store, error) {
	s := &Store{root}
	if s.ready() {
		return s, nil
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("make the store: %w", err)
	}
	// The directory under a later mount is the lock.
	dir, err := sys.OpenDir(root)
	if err != nil {
		return nil, fmt.Errorf("make the store: %w", err)
	}
	defer dir.Close()
	if err := sys.Flock(dir, unix.LOCK_EX); err != nil {
		return nil, err
	}
	if s.ready() {
		return s, nil
	}
	on, err := btrfs.Is(root)
	if err != nil {
		return nil, err
	}
	if !on {
		if err := embed(root, talk); err != nil {
			return nil, fmt.Errorf("make the store in %s: %w", root, err)
		}
	}
	// The root user of a container makes programs that are set-user-ID for the
	// host's root: nobody else may come near them. A directory that was there,
	// or the root of a file system, may let everybody in.
	if err := os.Chmod(root, 0o700); err != nil {
		return nil, fmt.Errorf("make the store: %w", err)
	}
	for _, d := range dirs {
		if err := os.Mkdir(filepath.Join(root, d), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("make the store: %w", err)
		}
	}
	layout := filepath.Join(root, "oci", "oci-layout")
	if err := sys.WriteFile(layout, []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o600, true); err != nil {
		return nil, fmt.Errorf("make the store: %w", err)
	}
	return s, nil
}

// ready says whether the store is there; oci-layout is made last. A directory
// that somebody has removed by hand, tmp is what invites to it, is made again.
func (s *Store) ready() bool {
	if on, err := btrfs.Is(s.root); err != nil || !on {
		return false
	}
	for _, d := range dirs {
		if _, err := os.Stat(s.Path(d)); err != nil {
			return false
		}
	}
	_, err := os.Stat(s.Path("oci", "oci-layout"))
	return err == nil
}

// Path is a path in the store.
func (s *Store) Path(elem ...string) string {
	return filepath.Join(append([]string{s.root}, elem...)...)
}

// OCI is the directory of the OCI image layout.
func (s *Store) OCI() string { return s.Path("oci") }

// Layer is the subvolume of a layer, named ALGO-CHAINID or local-UUID.
func (s *Store) Layer(name string) string { return s.Path("layers", name) }

// Container is the directory of a container.
func (s *Store) Container(id string) string { return s.Path("containers", id) }

// Rootfs is the subvolume of a container.
func (s *Store) Rootfs(id string) string { return s.Path("containers", id, "rootfs") }

// Use keeps layers and blobs from being swept until the returned function is
// called: who makes an image holds this until the image names them.
func (s *Store) Use() (release func() error, err error) {
	f, err := sys.OpenDir(s.Path("layers"))
	if err != nil {
		return nil, err
	}
	if err := sys.Flock(f, unix.LOCK_SH); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f.Close, nil
}

// Temp makes a directory for something that is being made. It is locked
// until it is closed, so that Sweep knows whether its maker lives; close
// removes what is still in it.
func (s *Store) Temp(name string) (path string, close func() error, err error) {
	for {
		path, err = os.MkdirTemp(s.Path("tmp"), name+"-")
		if err != nil {
			return "", nil, err
		}
		f, err := lockTemp(path)
		if err != nil {
			return "", nil, errors.Join(err, os.Remove(path))
		}
		if f != nil {
			return path, func() error { return errors.Join(removeTemp(path), f.Close()) }, nil
		}
	}
}

// lockTemp locks a new temporary directory. It returns nil if a sweep was
// faster and took the directory for a dead maker's.
func lockTemp(path string) (*os.File, error) {
	f, err := sys.OpenDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	err = sys.Flock(f, unix.LOCK_EX)
	there := false
	if err == nil {
		there, err = sys.IsAt(f, path)
	}
	if !there || err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// removeTemp removes a temporary directory: subvolumes as such, else files.
func removeTemp(path string) error {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		p := filepath.Join(path, e.Name())
		err := btrfs.Delete(p)
		if err != nil {
			err = os.RemoveAll(p)
		}
		if err != nil {
			return err
		}
	}
	return os.Remove(path)
}

// SweepTemp removes temporary directories whose maker has died and returns
// how many there were.
func (s *Store) SweepTemp() (int, error) {
	entries, err := os.ReadDir(s.Path("tmp"))
	if err != nil {
		return 0, err
	}
	n := 0
	for _, e := range entries {
		path := s.Path("tmp", e.Name())
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return n, err
		}
		err = sys.Flock(f, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			if err = removeTemp(path); err == nil {
				n++
			}
		} else if errors.Is(err, unix.EWOULDBLOCK) {
			err = nil
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return n, err
		}
	}
	return n, nil
}

// SweepPartial removes what came of blobs that were cut, unless somebody goes
// on with it.
func (s *Store) SweepPartial() error {
	entries, err := os.ReadDir(s.Path("partial"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		path := s.Path("partial", e.Name())
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		err = sys.Flock(f, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			err = os.Remove(path)
		}
		if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, fs.ErrNotExist) { // just renamed
			err = nil
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}
