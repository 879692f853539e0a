// Package stage is the contract between the programs of a pipeline: how a
// stage reads records, takes effect, undoes, and is found.
//
//	shocker-spec IMG CMD | shocker-subvol up | shocker-net up | shocker-cg up | shocker-run --record -
//
// stdin and stdout carry records, one a line; stderr carries talk. The undo
// is written before the effect (package undo). A record that fails is
// reported and not passed on; the others go on.
package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/record"
	"shocker.sh/lib/undo"
)

// Handler is what a stage does with one record.
type Handler interface {
	// Up takes the stage's effect and puts what came of it into the record.
	// If it fails, it has undone what it had done.
	Up(ctx context.Context, r *record.Record) error
	// Down undoes the effect. It may be called twice, and after a crash.
	Down(ctx context.Context, r *record.Record) error
	// Check says what is missing of the effect; it changes nothing.
	Check(ctx context.Context, r *record.Record) error
}

// Verbs of a stage.
const (
	Up    = "up"
	Down  = "down"
	Check = "check"
)

// ErrRecords says that some records failed, each of which has been reported.
var ErrRecords = errors.New("not every record went through")

// Run reads records from in and does verb to each. Those that go through are
// written to out at once; a failure is told at once, with the record's id, and
// makes Run return ErrRecords at the end.
func Run(ctx context.Context, host Host, name, verb string, h Handler, in io.Reader, out io.Writer, tell func(error)) error {
	defer CatchPipe()()
	failed := false
	records := record.NewReader(in)
	for {
		r, err := records.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = one(ctx, host, name, verb, h, r, out)
			if err != nil {
				err = fmt.Errorf("%s: %w", r.ID(), oneLine{err})
			}
		} else if !errors.Is(err, record.ErrInvalid) && !errors.Is(err, record.ErrNoID) {
			return err
		}
		if err != nil {
			failed = true
			tell(err)
		}
		if errors.Is(err, unix.EPIPE) || ctx.Err() != nil {
			break
		}
	}
	if failed {
		return ErrRecords
	}
	return ctx.Err()
}

func one(ctx context.Context, host Host, name, verb string, h Handler, r *record.Record, out io.Writer) (retErr error) {
	switch verb {
	case Down:
		if err := h.Down(ctx, r); err != nil {
			return err
		}
	case Check:
		if err := h.Check(ctx, r); err != nil {
			return err
		}
	case Up:
		dir, err := host.MakeRun(r.ID())
		if err != nil {
			return err
		}
		log := undo.Open(dir)
		busy, err := log.Begin(name)
		if err != nil {
			return err
		}
		defer func() { retErr = errors.Join(retErr, busy.Done()) }()
		before := r.Clone()
		if err := h.Up(ctx, r); err != nil {
			return err
		}
		if _, err := out.Write(r.Line()); err != nil {
			return errors.Join(fmt.Errorf("pass on: %w", err), h.Down(ctx, before))
		}
		return nil
	}
	_, err := out.Write(r.Line())
	return err
}

// CatchPipe keeps a broken stdout from killing us before our undo: a write to
// it fails with EPIPE until release is called. The signal is caught and not
// ignored, as what is ignored stays so across exec.
func CatchPipe() (release func()) {
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, unix.SIGPIPE)
	return func() { signal.Stop(broken) }
}

// oneLine tells of joined errors in one line, as a record has one.
type oneLine struct{ error }

func (e oneLine) Error() string {
	joined, ok := e.error.(interface{ Unwrap() []error })
	if !ok {
		return e.error.Error()
	}
	var texts, all []string
	for _, err := range joined.Unwrap() {
		texts = append(texts, err.Error())
		all = append(all, oneLine{err}.Error())
	}
	if text := e.error.Error(); text != strings.Join(texts, "\n") {
		return text // of fmt.Errorf with several %w
	}
	return strings.Join(all, "; ")
}

func (e oneLine) Unwrap() error { return e.error }
