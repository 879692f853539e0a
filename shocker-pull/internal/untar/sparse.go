package untar

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
)

// sparse says whether a file has holes: old GNU and PAX formats. What package
// tar gives for a hole are zeros.
func sparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

const block = 4 << 10 // bytes; a hole of btrfs is as large at least

var zeros [block]byte

// copySparse leaves holes where there are zeros: a few bytes of a layer may
// stand for a file of any size.
func (x *extractor) copySparse(f *os.File, r io.Reader) error {
	buf := x.buffer()
	size := int64(0)
	for {
		if x.ctx.Err() != nil {
			return context.Cause(x.ctx)
		}
		n, err := io.ReadFull(r, buf)
		if writeErr := writeBlocks(f, buf[:n], size); writeErr != nil {
			return writeErr
		}
		size += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) && n < len(buf) && atEnd(r) {
			return f.Truncate(size)
		}
		if err != nil {
			return err
		}
	}
}

// atEnd tells an end inside the buffer, which io.ReadFull calls unexpected,
// from a layer that is cut.
func atEnd(r io.Reader) bool {
	n, err := r.Read(make([]byte, 1))
	return n == 0 && errors.Is(err, io.EOF)
}

// writeBlocks writes the blocks of p that are not zero.
func writeBlocks(f *os.File, p []byte, off int64) error {
	from := 0 // what is before has been written, or is a hole
	for at := 0; at < len(p); at += block {
		b := p[at:min(at+block, len(p))]
		if !bytes.Equal(b, zeros[:len(b)]) {
			continue
		}
		if _, err := f.WriteAt(p[from:at], off+int64(from)); err != nil {
			return err
		}
		from = at + len(b)
	}
	_, err := f.WriteAt(p[from:], off+int64(from))
	return err
}
