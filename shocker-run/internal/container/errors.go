package container

import (
	"errors"
	"strings"
)

var (
	// ErrInvalid is a config that asks for what cannot be.
	ErrInvalid = errors.New("invalid config")
	// ErrUnsupported is a config that asks for what this runtime does not do.
	ErrUnsupported = errors.New("not supported")
	// ErrNotFound is a program that is not there: exit status 127.
	ErrNotFound = errors.New("executable file not found")
	// ErrNotExecutable is a program that cannot be executed: exit status 126.
	ErrNotExecutable = errors.New("cannot be executed")
	// ErrNoCwd is a working directory that is not there. Engines take that for a
	// program that is not.
	ErrNoCwd = errors.New("no working directory")
	// ErrUnsafeMount is a mount whose place in the image is a symbolic link
	// that could lead elsewhere.
	ErrUnsafeMount = errors.New("must be mounted on ordinary directory")
	// ErrByHabit is what engines ask for whether it can be had or not. It is worth
	// a line in a log; on stderr it would stand in what the program prints.
	ErrByHabit = errors.New("left out")
	// ErrGone is a container whose process is no longer there.
	ErrGone = errors.New("not running")
)

// plain is an error of ours. Engines tell by the words of an error that the
// program does not exist or may not be executed, and those of others must not
// hold the same ones.
type plain struct{ error }

var plainWords = strings.NewReplacer(
	"no such file or directory", "does not exist",
	"permission denied", "access is not permitted",
	"executable file not found", "not found",
)

func (e plain) Error() string { return plainWords.Replace(e.error.Error()) }
func (e plain) Unwrap() error { return e.error }

// Plainly makes errors plain; those that were joined stay lines of their own.
func Plainly(err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		list, lines := joined.Unwrap(), []string(nil)
		all := make([]error, len(list))
		for i, e := range list {
			lines = append(lines, e.Error())
			all[i] = Plainly(e)
		}
		if err.Error() == strings.Join(lines, "\n") { // else it is of fmt.Errorf
			return errors.Join(all...)
		}
	}
	if err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrNotExecutable) || errors.Is(err, ErrNoCwd) {
		return err
	}
	return plain{err}
}
