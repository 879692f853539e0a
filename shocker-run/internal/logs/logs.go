// Package logs writes and reads the output of a container in the log format
// of the Kubernetes container runtime interface (CRI), one entry a line:
//
//	2026-01-02T15:04:05.000000000Z stdout F a whole line, or the rest of one
//	2026-01-02T15:04:05.000000000Z stderr P a piece that no newline has ended
//
// What the program wrote is written down when it is read, never held back, so
// a prompt shows and nothing is lost with a killed supervisor. The pieces of
// one stream put together, with a newline after each F, are its exact bytes.
package logs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// The streams of an entry.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

// timeLayout is RFC 3339 with all nine digits, so that all times are equally
// long.
const timeLayout = "2006-01-02T15:04:05.000000000Z07:00"

// Writer appends to a log. Its streams may be written from several
// goroutines.
type Writer struct {
	mu  sync.Mutex
	f   *os.File
	buf []byte
	err error
}

// Create opens the log at path for appending; a restarted container goes on
// in the log that it has.
func Create(path string) (*Writer, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	return &Writer{f: f}, nil
}

// Write puts p into the log as output of the given stream. The program must
// not suffer from a full disk: the first error is kept for Close, and what
// comes after it is dropped.
func (w *Writer) Write(stream string, p []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil || len(p) == 0 {
		return
	}
	now := time.Now().UTC()
	w.buf = w.buf[:0]
	for len(p) > 0 {
		piece, tag := p, " P "
		if i := bytes.IndexByte(p, '\n'); i >= 0 {
			piece, tag = p[:i], " F "
			p = p[i+1:]
		} else {
			p = nil
		}
		w.buf = now.AppendFormat(w.buf, timeLayout)
		w.buf = append(w.buf, ' ')
		w.buf = append(w.buf, stream...)
		w.buf = append(w.buf, tag...)
		w.buf = append(w.buf, piece...)
		w.buf = append(w.buf, '\n')
	}
	_, w.err = w.f.Write(w.buf)
}

// Close closes the log and returns the first error there was.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := errors.Join(w.err, w.f.Close()); err != nil {
		return fmt.Errorf("log is not complete: %w", err)
	}
	return nil
}
