// Package fetch brings blobs from a registry into the store's OCI layout. A
// blob has its name only when it is whole and has its digest; what came of one
// that was cut stays in partial/ and is gone on with.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	_ "crypto/sha512" // digests of that algorithm are checked too

	digest "github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/store"
	"shocker.sh/lib/sys"
	"shocker.sh/shocker-pull/internal/registry"
)

// Progress is told of bytes that have come, or were there already.
type Progress func(n int64)

// Put writes a small document that has been checked.
func Put(st *store.Store, d digest.Digest, data []byte) error {
	path := st.Blob(d)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return sys.WriteFile(path, data, 0o600, false)
}

// Blob fetches a blob unless it is there.
func Blob(ctx context.Context, st *store.Store, c *registry.Client, d ispec.Descriptor, progress Progress) (retErr error) {
	defer func() {
		if retErr != nil {
			retErr = fmt.Errorf("blob %s of %s: %w", d.Digest, c.Repository(), retErr)
		}
	}()
	if there(st, d) {
		progress(d.Size)
		return nil
	}
	f, err := partial(ctx, st, d)
	if err != nil {
		return err
	}
	defer func() { retErr = errors.Join(retErr, f.Close()) }()
	if there(st, d) { // another command was at it
		progress(d.Size)
		return os.Remove(f.Name())
	}
	w := &writer{f: f, size: d.Size, progress: progress}
	if err := w.resume(d.Digest); err != nil {
		return err
	}
	for {
		before := w.n
		err := c.Retry(ctx, func() error { return w.fetch(ctx, c, d) })
		if err == nil {
			break
		}
		// A connection that brings something may be cut as often as it
		// likes.
		if w.n == before || ctx.Err() != nil || errors.Is(err, registry.ErrTooMuch) || errors.Is(err, registry.ErrStalled) {
			return err
		}
	}
	if got := digest.NewDigest(d.Digest.Algorithm(), w.hash); got != d.Digest {
		return errors.Join(fmt.Errorf("%w: what came has %s", registry.ErrDigest, got), os.Remove(f.Name()))
	}
	path := st.Blob(d.Digest)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// there says whether the blob is whole. It was checked when it got its name.
func there(st *store.Store, d ispec.Descriptor) bool {
	fi, err := os.Stat(st.Blob(d.Digest))
	return err == nil && fi.Mode().IsRegular() && fi.Size() == d.Size
}

// partial opens the file that a blob is collected in, and waits for its turn
// if another command is at it.
func partial(ctx context.Context, st *store.Store, d ispec.Descriptor) (*os.File, error) {
	dir := st.Path("partial")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, d.Digest.Algorithm().String()+"-"+d.Digest.Encoded())
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		err = lock(ctx, f)
		if err == nil {
			// Renamed or removed meanwhile: then the next one is ours.
			var here, named unix.Stat_t
			if err = unix.Fstat(int(f.Fd()), &here); err == nil {
				err = unix.Stat(path, &named)
			}
			if err == nil && here.Ino == named.Ino {
				return f, nil
			}
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				f.Close()
				continue
			}
		}
		return nil, errors.Join(err, f.Close())
	}
}

// lock waits for a lock as flock(2) does, but not longer than ctx.
func lock(ctx context.Context, f *os.File) error {
	for {
		err := sys.Flock(f, unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// writer collects a blob.
type writer struct {
	f        *os.File
	hash     hash.Hash
	n, size  int64
	progress Progress
}

// resume takes on what is in the file.
func (w *writer) resume(d digest.Digest) error {
	w.hash = d.Algorithm().Hash()
	if w.hash == nil {
		return fmt.Errorf("digest algorithm %s is not available", d.Algorithm())
	}
	n, err := io.Copy(w.hash, w.f)
	if err != nil {
		return err
	}
	if n > w.size {
		return w.restart()
	}
	w.n = n
	w.progress(n)
	return nil
}

func (w *writer) restart() error {
	if _, err := w.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	w.progress(-w.n)
	w.n = 0
	w.hash.Reset()
	return w.f.Truncate(0)
}

// fetch asks for the rest.
func (w *writer) fetch(ctx context.Context, c *registry.Client, d ispec.Descriptor) error {
	if w.n == w.size {
		return nil
	}
	r, begin, err := c.Blob(ctx, d, w.n)
	if err != nil {
		return err
	}
	defer r.Close()
	if begin != w.n {
		if err := w.restart(); err != nil {
			return err
		}
	}
	buf := make([]byte, 256<<10)
	for {
		n, err := r.Read(buf)
		if w.n+int64(n) > w.size {
			return errors.Join(registry.ErrTooMuch, os.Remove(w.f.Name()))
		}
		if n > 0 {
			if _, err := w.f.Write(buf[:n]); err != nil {
				return err
			}
			w.hash.Write(buf[:n])
			w.n += int64(n)
			w.progress(int64(n))
		}
		if errors.Is(err, io.EOF) {
			if w.n < w.size {
				return fmt.Errorf("it ends after %d of %d bytes: %w", w.n, w.size, io.ErrUnexpectedEOF)
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}
