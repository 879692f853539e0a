package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"shocker.sh/lib/store"
	"shocker.sh/shocker-pull/internal/registry"
)

// Download is a blob on its way into the store. It can be read meanwhile.
type Download struct {
	st   *store.Store
	desc ispec.Descriptor
	done chan struct{}
	err  error // once done is closed

	mu   sync.Mutex
	more sync.Cond
	path string // where what has come is; "" before it begins
	n    int64  // bytes of it
	over bool   // done is closed
}

// NewDownload is a download that waits for Run.
func NewDownload(st *store.Store, d ispec.Descriptor) *Download {
	dl := &Download{st: st, desc: d, done: make(chan struct{})}
	dl.more.L = &dl.mu
	return dl
}

// Run fetches the blob, unless it is there.
func (d *Download) Run(ctx context.Context, c *registry.Client, progress Progress) {
	err := d.run(ctx, c, progress)
	if err != nil {
		err = fmt.Errorf("blob %s of %s: %w", d.desc.Digest, c.Repository(), err)
	}
	d.end(err)
}

func (d *Download) end(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err, d.over = err, true
	if d.path == "" {
		d.path, d.n = d.st.Blob(d.desc.Digest.String()), d.desc.Size
	}
	close(d.done)
	d.more.Broadcast()
}

// Whole says whether there is nothing to fetch.
func (d *Download) Whole() bool { return whole(d.st, d.desc) }

// Wait waits until the blob is whole, or cannot be.
func (d *Download) Wait() error {
	<-d.done
	return d.err
}

// begin says where the blob is collected.
func (d *Download) begin(path string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.path = path
	d.more.Broadcast()
}

func (d *Download) grown(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.n = n
	d.more.Broadcast()
}

// finish gives the whole blob its name.
func (d *Download) finish(temp string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := name(d.st, temp, d.desc.Digest); err != nil {
		return err
	}
	d.path = d.st.Blob(d.desc.Digest.String())
	return nil
}

// Open reads the blob as it comes. It ends with io.EOF only once the blob is
// whole and has its digest.
func (d *Download) Open(ctx context.Context) (io.ReadCloser, error) {
	r := &follower{ctx: ctx, d: d}
	r.stop = context.AfterFunc(ctx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.more.Broadcast()
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.path == "" && ctx.Err() == nil {
		d.more.Wait()
	}
	err := context.Cause(ctx)
	if err == nil && d.over {
		err = d.err
	}
	if err == nil {
		r.f, err = os.Open(d.path)
	}
	if err != nil {
		r.stop()
		return nil, err
	}
	return r, nil
}

type follower struct {
	ctx  context.Context
	stop func() bool
	d    *Download
	f    *os.File
	off  int64
}

// await waits until there is something behind the offset and returns how much.
func (r *follower) await() (int64, error) {
	d := r.d
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		switch {
		case r.ctx.Err() != nil:
			return 0, context.Cause(r.ctx)
		case d.over && d.err != nil:
			return 0, d.err
		case r.off < d.n && (d.over || r.off < d.desc.Size):
			return d.n - r.off, nil
		case d.over:
			return 0, io.EOF
		}
		d.more.Wait()
	}
}

func (r *follower) Read(p []byte) (int, error) {
	for {
		n, err := r.await()
		if err != nil {
			return 0, err
		}
		m, err := r.f.ReadAt(p[:min(int64(len(p)), n)], r.off)
		r.off += int64(m)
		// Truncated for a restart, it grows again. If that is not the same
		// again, what comes out of it has not its diff ID.
		if m > 0 || !errors.Is(err, io.EOF) {
			return m, err
		}
	}
}

func (r *follower) Close() error {
	r.stop()
	return r.f.Close()
}
