package unpack

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	digest "github.com/opencontainers/go-digest"

	"shocker.sh/shocker-pull/internal/untar"
)

// ErrDiffID is a layer that does not unpack to what the config says.
var ErrDiffID = errors.New("the layer does not unpack to its diff ID")

// maxWindow limits what a zstd stream may ask us to remember, in bytes.
const maxWindow = 128 << 20

// apply unpacks a blob into a tree and checks the digest of what comes out of
// it. Reading and inflating run beside the rest:
//
//	blob ─▶ inflate ═▶ hash ─▶ untar ─▶ files
//
// abort makes a read of the blob that waits for more return.
func apply(ctx context.Context, blob io.Reader, abort func(), diffID digest.Digest, root *os.File) error {
	packed := bufio.NewReaderSize(blob, 256<<10)
	plain, stop, err := decompress(packed)
	if err != nil {
		return err
	}
	defer stop()
	pump := newPump(plain)
	defer pump.close()
	defer abort()
	out := &hashed{r: pump, h: diffID.Algorithm().Hash()}
	if err := untar.Extract(ctx, root, out, limits()); err != nil {
		return err
	}
	// A digest speaks of all bytes, also of those behind the last one needed.
	if _, err := io.Copy(io.Discard, packed); err != nil {
		return err
	}
	if got := digest.NewDigest(diffID.Algorithm(), out.h); got != diffID {
		return fmt.Errorf("%w %s, but to %s", ErrDiffID, diffID, got)
	}
	return nil
}

// hashed hashes what is read through it.
type hashed struct {
	r io.Reader
	h hash.Hash
}

func (h *hashed) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	h.h.Write(p[:n])
	return n, err
}

// decompress looks at the first bytes rather than at the media type, which
// some registries get wrong.
func decompress(r *bufio.Reader) (io.Reader, func(), error) {
	magic, err := r.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	switch {
	case len(magic) >= 2 && magic[0] == 0x1f && magic[1] == 0x8b:
		z, err := gzip.NewReader(r)
		return z, func() {}, err
	case len(magic) == 4 && (string(magic) == "\x28\xb5\x2f\xfd" || // RFC 8878: a frame,
		magic[0]&0xf0 == 0x50 && string(magic[1:]) == "\x2a\x4d\x18"): // or one to be skipped
		z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	}
	return r, func() {}, nil
}

// pump reads ahead in a goroutine of its own.
type pump struct {
	full, empty chan []byte
	done        chan struct{}
	once        sync.Once
	running     sync.WaitGroup
	err         error // once full is closed
	current     []byte
	rest        []byte
}

func newPump(r io.Reader) *pump {
	const chunks, size = 8, 256 << 10
	p := &pump{full: make(chan []byte, chunks), empty: make(chan []byte, chunks), done: make(chan struct{})}
	for range chunks {
		p.empty <- make([]byte, size)
	}
	p.running.Go(func() {
		defer close(p.full)
		for {
			var b []byte
			select {
			case b = <-p.empty:
			case <-p.done:
				return
			}
			n, err := 0, error(nil)
			for n < len(b) && err == nil {
				var m int
				m, err = r.Read(b[n:])
				n += m
			}
			p.full <- b[:n] // as many places as there are chunks
			if err != nil {
				p.err = err
				return
			}
		}
	})
	return p
}

func (p *pump) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		if p.current != nil {
			p.empty <- p.current[:cap(p.current)]
			p.current = nil
		}
		next, ok := <-p.full
		if !ok {
			return 0, p.err
		}
		p.current, p.rest = next, next
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// close ends the goroutine; what it reads from may be closed then.
func (p *pump) close() {
	p.once.Do(func() { close(p.done) })
	p.running.Wait()
}
