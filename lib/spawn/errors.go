package spawn

import (
	"errors"
	"fmt"
	"runtime"
)

var (
	// ErrUnsupported is an architecture without a stub.
	ErrUnsupported = fmt.Errorf("spawn: no stub for %s", runtime.GOARCH)
	// ErrTableFull is a table with more steps or bytes than it has room for.
	ErrTableFull = errors.New("too much for the start of one process: there must be fewer mounts and paths, or fewer arguments and a smaller environment")
	// ErrNUL is a string that cannot be handed to the kernel whole.
	ErrNUL = errors.New("a NUL byte in a string")
	// ErrDied is a child that was killed before it executed its program.
	ErrDied = errors.New("the process was killed before it executed its program")
	// ErrNotHeld is a place where no child waits to be let go.
	ErrNotHeld = errors.New("no process waits for its start")
	// ErrGone is a process that has ended, whoever has its number now.
	ErrGone = errors.New("the process has ended")
)

// StepError is a step of the child that failed. Err is the errno.
type StepError struct {
	Step string // what was tried on what: "mount proc on /proc"
	Err  error
}

func (e *StepError) Error() string { return e.Step + ": " + e.Err.Error() }
func (e *StepError) Unwrap() error { return e.Err }
