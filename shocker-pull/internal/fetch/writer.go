package fetch

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	digest "github.com/opencontainers/go-digest"

	"shocker.sh/shocker-pull/internal/registry"
)

// writer collects a blob in a file and hashes it.
type writer struct {
	f        *os.File
	hash     hash.Hash
	n, size  int64
	progress Progress
	grown    func(n int64) // told how long the file is
	buf      []byte
}

// resume takes on what is in the file.
func (w *writer) resume(d digest.Digest) error {
	w.hash = d.Algorithm().Hash()
	w.buf = make([]byte, 256<<10)
	n, err := io.CopyBuffer(struct{ io.Writer }{w.hash}, struct{ io.Reader }{w.f}, w.buf)
	if err != nil {
		return err
	}
	if n > w.size {
		return w.restart()
	}
	w.add(n)
	return nil
}

func (w *writer) add(n int64) {
	w.n += n
	w.progress(n)
	w.grown(w.n)
}

func (w *writer) restart() error {
	if _, err := w.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	w.add(-w.n)
	w.hash.Reset()
	return w.f.Truncate(0)
}

// minProgress is what a few connections have to bring, in bytes, for further
// ones to be tried: a registry that sends a byte and hangs up would hold us for
// ever.
const minProgress = 16 << 10

// collect gets the rest. A connection that brings something may be cut as
// often as it likes.
func (w *writer) collect(ctx context.Context, c *registry.Client, d digest.Digest) error {
	for {
		before := w.n
		err := c.Retry(ctx, func() error { return w.fetch(ctx, c, d) })
		if err == nil || ctx.Err() != nil || w.n < before+minProgress || !registry.Passing(err) {
			return err
		}
	}
}

// fetch asks once for the rest.
func (w *writer) fetch(ctx context.Context, c *registry.Client, d digest.Digest) error {
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
	for {
		n, err := r.Read(w.buf)
		if w.n+int64(n) > w.size {
			return errors.Join(registry.ErrTooMuch, os.Remove(w.f.Name()))
		}
		if n > 0 {
			if _, err := w.f.Write(w.buf[:n]); err != nil {
				return err
			}
			w.hash.Write(w.buf[:n])
			w.add(int64(n))
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
