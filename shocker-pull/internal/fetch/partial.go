package fetch

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	digest "github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/store"
	"shocker.sh/lib/sys"
)

// partial opens the file that a blob is collected in, and waits for its turn
// if another command is at it.
func partial(ctx context.Context, st *store.Store, d digest.Digest) (*os.File, error) {
	dir := st.Path("partial")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, d.Algorithm().String()+"-"+d.Encoded())
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		err = lock(ctx, f)
		if err == nil {
			// Renamed or removed meanwhile: then the next one is ours.
			var at bool
			if at, err = sys.IsAt(f, path); at {
				return f, nil
			}
			if err == nil {
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
