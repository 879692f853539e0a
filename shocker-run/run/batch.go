package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"shocker.sh/lib/applet"
	"shocker.sh/lib/record"
	"shocker.sh/lib/stage"
	"shocker.sh/lib/undo"
)

// batch runs the records of an input, each from when its line has arrived.
type batch struct {
	ctx                         context.Context
	host                        stage.Host
	io                          applet.IO
	detach, interactive, remove bool
	event                       func(Event)

	many    atomic.Bool // more than one record has been seen
	writing sync.Mutex  // a whole line to stdout or stderr
}

// result is what became of one record, in the order of the input.
type result struct {
	id     string
	status int
	err    error
}

func (b *batch) run(records *record.Reader) error {
	var (
		running sync.WaitGroup
		results []*result
		waiting *record.Record // wants stdin or a terminal: is it the only one?
	)
	start := func(r *record.Record, alone bool) {
		res := &result{id: r.ID()}
		results = append(results, res)
		running.Go(func() { res.status, res.err = b.one(r, alone) })
	}
	for {
		r, err := records.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if len(results) > 0 || waiting != nil {
			b.many.Store(true)
		}
		if waiting != nil {
			start(waiting, false)
			waiting = nil
		}
		if err != nil {
			results = append(results, &result{status: applet.NotStarted, err: err})
			if errors.Is(err, record.ErrInvalid) || errors.Is(err, record.ErrNoID) {
				continue
			}
			break
		}
		if !b.many.Load() && (b.interactive || terminal(r)) {
			waiting = r
			continue
		}
		start(r, false)
	}
	if waiting != nil {
		start(waiting, true)
	}
	running.Wait()
	if len(results) == 1 {
		return exit(results[0].status, named(results[0]))
	}
	status := 0
	for _, res := range results {
		if err := exit(res.status, named(res)); err != nil && status == 0 {
			status = err.(*applet.ExitError).Code
		}
		if res.err != nil {
			fmt.Fprintf(b.io.Err, "%s: %s\n", Name, applet.Escape(named(res).Error()))
		}
	}
	return exit(status, nil)
}

func named(r *result) error {
	if r.err == nil || r.id == "" {
		return r.err
	}
	return fmt.Errorf("%s: %w", r.id, r.err)
}

func terminal(r *record.Record) bool {
	var t bool
	_, err := r.Get(&t, "process", "terminal")
	return err == nil && t
}

// one runs one record; alone says that it is the only one for certain.
func (b *batch) one(r *record.Record, alone bool) (_ int, retErr error) {
	if terminal(r) && !alone {
		return applet.NotStarted, errors.Join(errTerminals, discard(b.host, r))
	}
	dir, err := b.host.MakeRun(r.ID())
	if err != nil {
		return applet.NotStarted, err
	}
	// Until the program runs the container counts as being worked on.
	busy, err := undo.Open(dir).Begin(Name)
	if err != nil {
		return applet.NotStarted, err
	}
	var once sync.Once
	done := func() (err error) {
		once.Do(func() { err = busy.Done() })
		return err
	}
	defer func() { retErr = errors.Join(retErr, done()) }()

	o := Options{Remove: b.remove, Event: func(e Event) {
		if e.Status == "running" {
			_ = done() // a mark that stays is taken for a dead command's
		}
		if b.event != nil {
			b.event(e)
		}
	}}
	if b.detach {
		o.Held = b.interactive
		status, err := Detach(b.ctx, b.host, r, o)
		if err == nil {
			_, err = fmt.Fprintln(b.lines(b.io.Out), r.ID())
		}
		return status, err
	}
	if alone && b.interactive {
		o.In = b.io.In
	}
	out, errOut := b.lines(b.io.Out), b.lines(b.io.Err)
	o.Out, o.Err = out, errOut
	status, err := Run(b.ctx, b.host, r, o)
	out.flush()
	errOut.flush()
	return status, err
}

// discard removes a container whose record is refused.
func discard(host stage.Host, r *record.Record) error {
	st, err := openStore(host, r.ID())
	if err != nil {
		return err
	}
	s := &session{host: host, r: r, store: st, runDir: host.RunDir(r.ID())}
	return s.remove()
}

// lines makes a writer to w that keeps lines whole as soon as there are
// several programs. One alone is not held back: a prompt has no newline.
func (b *batch) lines(w io.Writer) *lineWriter { return &lineWriter{b: b, w: w} }

// maxLine is how much of a line is held back, in bytes.
const maxLine = 64 << 10

type lineWriter struct {
	b    *batch
	w    io.Writer
	part []byte // a line that has no end yet
}

func (l *lineWriter) Write(p []byte) (int, error) {
	if !l.b.many.Load() && len(l.part) == 0 {
		return l.w.Write(p)
	}
	l.part = append(l.part, p...)
	end := bytes.LastIndexByte(l.part, '\n') + 1
	if end == 0 && len(l.part) < maxLine {
		return len(p), nil
	}
	if end == 0 {
		end = len(l.part)
	}
	l.b.writing.Lock()
	defer l.b.writing.Unlock()
	_, err := l.w.Write(l.part[:end])
	l.part = append(l.part[:0], l.part[end:]...)
	return len(p), err
}

// flush writes a last line that had no newline, and ends it.
func (l *lineWriter) flush() {
	if len(l.part) > 0 {
		// A reader that is gone was an error of Write before.
		_, _ = l.Write([]byte{'\n'})
	}
}
