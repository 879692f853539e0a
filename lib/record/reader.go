package record

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// MaxSize limits one record, in bytes.
const MaxSize = 16 << 20

// Reader reads records from a stream, one a line. A record may also be spread
// over lines, as jq prints it without -c: then its further lines are indented
// or begin with "}". A line that begins with "{" always begins a new record,
// so a record that was cut spoils only itself.
type Reader struct {
	br   *bufio.Reader
	line int    // lines read
	next []byte // first line of the next record, read too far
	any  bool
}

// NewReader reads records from r.
func NewReader(r io.Reader) *Reader { return &Reader{br: bufio.NewReader(r)} }

// Next returns the next record. An error that wraps ErrInvalid concerns that
// record alone: the caller reports it and goes on. At the end it returns
// io.EOF, or ErrEmpty if there was no record.
func (r *Reader) Next() (*Record, error) {
	text, line, err := r.one()
	if err != nil {
		return nil, err
	}
	rec, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("record at line %d: %w", line, err)
	}
	return rec, nil
}

// NextText is Next for configs that are not records yet: it returns the text
// of one, which may not even be JSON.
func (r *Reader) NextText() ([]byte, error) {
	text, _, err := r.one()
	return text, err
}

func (r *Reader) one() (text []byte, line int, err error) {
	text, line, err = r.text()
	if errors.Is(err, io.EOF) && !r.any {
		return nil, line, ErrEmpty
	}
	r.any = r.any || err == nil
	return text, line, err
}

// text collects the lines of one record and returns the number of its first.
func (r *Reader) text() (text []byte, line int, err error) {
	text, r.next = r.next, nil
	line = r.line
	for len(bytes.TrimSpace(text)) == 0 {
		if text, err = r.readLine(); err != nil {
			return nil, r.line, err
		}
		line = r.line
	}
	if text[0] != '{' || json.Valid(text) {
		return text, line, nil
	}
	for {
		more, err := r.readLine()
		switch {
		case errors.Is(err, io.EOF):
			return text, line, nil
		case err != nil:
			return nil, line, err
		case more[0] == '{':
			r.next = more
			return text, line, nil
		case len(text)+len(more) > MaxSize:
			return nil, line, r.tooLong()
		}
		text = append(text, more...)
		if more[0] == '}' && json.Valid(text) { // no other line can be the last
			return text, line, nil
		}
	}
}

// readLine returns the next line with its newline. It gives up a line above
// MaxSize, reading on to its end so that the next one is whole.
func (r *Reader) readLine() ([]byte, error) {
	var line []byte
	for {
		part, err := r.br.ReadSlice('\n')
		if len(line) <= MaxSize {
			line = append(line, part...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil && (len(line) == 0 || !errors.Is(err, io.EOF)) {
			return nil, err
		}
		r.line++
		if len(line) > MaxSize {
			return nil, r.tooLong()
		}
		return line, nil
	}
}

func (r *Reader) tooLong() error {
	r.any = true
	return fmt.Errorf("record at line %d: %w: more than %d bytes", r.line, ErrInvalid, MaxSize)
}
