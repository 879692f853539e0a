package run

import (
	"errors"
	"fmt"
	"io/fs"

	"shocker.sh/lib/applet"
	"shocker.sh/shocker-run/internal/container"
)

var (
	// ErrNotRunning is a container whose program does not run.
	ErrNotRunning = errors.New("is not running")
	// ErrSupervised is a container that somebody else runs at this moment.
	ErrSupervised = errors.New("another command runs this container")
	// ErrNoRoot is a record whose root no stage has made.
	ErrNoRoot = fmt.Errorf("%w: shocker-subvol up makes it, or another stage in its place", fs.ErrNotExist)
	// ErrOutOfMemory is the end of a program that needed more than its
	// container may have.
	ErrOutOfMemory = errors.New("the program was killed for want of memory: --memory gives it more")
	// ErrLost is an exit status that nobody was there to see.
	ErrLost = errors.New("exit status is not known: the supervisor was killed")
)

// statusOf is the exit status for an error of starting a program: 127 and 126
// are the program's own, 125 is ours.
func statusOf(err error) int {
	switch {
	case errors.Is(err, container.ErrNotFound):
		return applet.NotFound
	case errors.Is(err, container.ErrNotExecutable):
		return applet.NotExecutable
	}
	return applet.NotStarted
}
