package run

import (
	"errors"

	"shocker.sh/lib/applet"
	"shocker.sh/shocker-run/internal/container"
)

var (
	// ErrNotRunning is a container whose program does not run.
	ErrNotRunning = errors.New("is not running")
	// ErrSupervised is a container that somebody else runs at this moment.
	ErrSupervised = errors.New("another command runs this container")
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
