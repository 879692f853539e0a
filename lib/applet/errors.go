package applet

import (
	"errors"
	"fmt"
)

// ErrNotRoot is a command that only root can give.
var ErrNotRoot = errors.New("must be run as root")

func notRoot(uid int) error {
	return fmt.Errorf("%w, not as uid %d: try sudo", ErrNotRoot, uid)
}
