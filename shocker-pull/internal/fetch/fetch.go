// Package fetch brings blobs from a registry into the store's OCI layout. A
// blob has its name only when it is whole and has its digest; what came of one
// that was cut stays in partial/ and is gone on with:
//
//	partial/ALGO-HEX ── whole, synced by whoever makes an image ──▶ oci/blobs/ALGO/HEX
//
// The file in partial/ is locked by the command that fills it.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	digest "github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"shocker.sh/lib/store"
	"shocker.sh/shocker-pull/internal/registry"
)

// Progress is told of bytes that have come, or were there already.
type Progress func(n int64)

// Document returns a small blob: from the store, or else from get, which has
// checked what it returns.
func Document(st *store.Store, d ispec.Descriptor, get func() ([]byte, error)) ([]byte, error) {
	if whole(st, d) { // and as small as it should be
		data, err := os.ReadFile(st.Blob(d.Digest.String()))
		if err == nil && d.Digest.Algorithm().FromBytes(data) == d.Digest {
			return data, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	data, err := get()
	if err != nil {
		return nil, err
	}
	return data, put(st, d.Digest, data)
}

func put(st *store.Store, d digest.Digest, data []byte) (retErr error) {
	dir, done, err := st.Temp("blob")
	if err != nil {
		return err
	}
	defer func() { retErr = errors.Join(retErr, done()) }()
	temp := filepath.Join(dir, "blob")
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return name(st, temp, d)
}

// name gives a file its name as a blob.
func name(st *store.Store, temp string, d digest.Digest) error {
	path := st.Blob(d.String())
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

// whole says whether the blob is there. It was checked when it got its name.
func whole(st *store.Store, d ispec.Descriptor) bool {
	fi, err := os.Stat(st.Blob(d.Digest.String()))
	return err == nil && fi.Mode().IsRegular() && fi.Size() == d.Size
}

// run fetches the blob unless it is there.
func (d *Download) run(ctx context.Context, c *registry.Client, progress Progress) (retErr error) {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if whole(d.st, d.desc) {
		progress(d.desc.Size)
		return nil
	}
	f, err := partial(ctx, d.st, d.desc.Digest)
	if err != nil {
		return err
	}
	defer func() { retErr = errors.Join(retErr, f.Close()) }()
	if whole(d.st, d.desc) { // another command was at it
		progress(d.desc.Size)
		return os.Remove(f.Name())
	}
	w := &writer{f: f, size: d.desc.Size, progress: progress, grown: d.grown}
	defer func() {
		// What came of it is for the next try. Nothing is for nobody, and what
		// has filled the disk keeps everybody else from working.
		var local *fs.PathError
		if retErr != nil && (w.n == 0 || errors.As(retErr, &local)) {
			if err := os.Remove(f.Name()); !errors.Is(err, fs.ErrNotExist) {
				retErr = errors.Join(retErr, err)
			}
		}
	}()
	if err := w.resume(d.desc.Digest); err != nil {
		return err
	}
	for old := w.n; ; old = 0 {
		d.begin(f.Name())
		if err := w.collect(ctx, c, d.desc.Digest); err != nil {
			return err
		}
		got := digest.NewDigest(d.desc.Digest.Algorithm(), w.hash)
		if got == d.desc.Digest {
			break
		}
		// The part from an earlier command may be what is bad: a machine
		// that lost its power can leave holes in it.
		if old == 0 {
			return errors.Join(fmt.Errorf("%w: what came has %s", registry.ErrDigest, got), os.Remove(f.Name()))
		}
		if err := w.restart(); err != nil {
			return err
		}
	}
	return d.finish(f.Name())
}
