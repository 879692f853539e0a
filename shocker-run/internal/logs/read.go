package logs

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// ErrFormat is a line of a log that is not an entry.
var ErrFormat = errors.New("not in the CRI log format")

// Options say what Read shows.
type Options struct {
	Timestamps bool            // before every line
	Tail       int             // only the last lines, this many; negative: all
	Follow     <-chan struct{} // if not nil: go on until it is closed
}

// Read writes the program's bytes from the log at path, those of its stdout
// to out and those of its stderr to errOut. A log that is not there is empty.
func Read(path string, out, errOut io.Writer, o Options) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && o.Follow == nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	defer f.Close()
	if o.Tail >= 0 {
		start, err := tailOffset(f, o.Tail)
		if err != nil {
			return fmt.Errorf("log: %w", err)
		}
		if _, err := f.Seek(start, io.SeekStart); err != nil {
			return fmt.Errorf("log: %w", err)
		}
	}
	p := &printer{out: map[string]io.Writer{Stdout: out, Stderr: errOut}, timestamps: o.Timestamps}
	if o.Follow == nil {
		return p.all(bufio.NewReaderSize(f, 64<<10))
	}
	return p.follow(f, o.Follow)
}

// printer turns entries back into the program's bytes.
type printer struct {
	out        map[string]io.Writer
	timestamps bool
	inLine     map[string]bool // the stream's last entry was a piece
}

// all prints the entries of r to its end. An entry without its newline was
// cut when its writer was killed, or is being written: it is left out.
func (p *printer) all(r *bufio.Reader) error {
	for {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := p.entry(line); err != nil {
			return err
		}
	}
}

func (p *printer) entry(line []byte) error {
	when, rest, ok1 := bytes.Cut(line, []byte(" "))
	stream, rest, ok2 := bytes.Cut(rest, []byte(" "))
	tag, text, ok3 := bytes.Cut(rest, []byte(" "))
	w := p.out[string(stream)]
	whole := string(tag) == "F"
	if !ok1 || !ok2 || !ok3 || w == nil || !whole && string(tag) != "P" {
		return fmt.Errorf("log: %w: %.40q", ErrFormat, line)
	}
	if !whole {
		text = text[:len(text)-1]
	}
	if p.timestamps {
		if p.inLine == nil {
			p.inLine = make(map[string]bool)
		}
		if !p.inLine[string(stream)] {
			text = append(append(bytes.Clone(when), ' '), text...)
		}
		p.inLine[string(stream)] = !whole
	}
	_, err := w.Write(text)
	return err
}

// tailOffset finds where the last n lines of the log begin, reading it from
// its end. An entry F ends a line; a piece at the very end is one as well.
func tailOffset(f *os.File, n int) (int64, error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || n == 0 {
		return end, err
	}
	const block = 64 << 10
	var (
		tail  []byte // from offset start to the first entry that was counted
		start = end
		first = true
		lines int
	)
	for {
		// Entries are complete in tail from the byte after a newline on.
		for {
			i := bytes.LastIndexByte(bytes.TrimSuffix(tail, []byte("\n")), '\n')
			if i < 0 && start > 0 || len(tail) == 0 {
				break
			}
			whole := endsLine(tail[i+1:])
			if whole || first && bytes.HasSuffix(tail, []byte("\n")) {
				lines++
			}
			if whole && lines > n {
				return start + int64(len(tail)), nil
			}
			first = first && !bytes.HasSuffix(tail, []byte("\n"))
			tail = tail[:i+1]
		}
		if start == 0 {
			return 0, nil
		}
		size := min(block, start)
		start -= size
		more := make([]byte, size, int(size)+len(tail))
		if _, err := f.ReadAt(more, start); err != nil {
			return 0, err
		}
		tail = append(more, tail...)
	}
}

func endsLine(entry []byte) bool {
	fields := bytes.SplitN(entry, []byte(" "), 4)
	return len(fields) == 4 && string(fields[2]) == "F"
}
