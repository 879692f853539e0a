package cg

import (
	"errors"

	"shocker.sh/lib/cgroup/group"
	"shocker.sh/lib/cgroup/resources"
)

// ErrLimit is a limit that cannot be meant.
var ErrLimit = errors.New("invalid limit")

// Errors of the packages below, for errors.Is.
var (
	ErrExists       = group.ErrExists       // a group is in the way
	ErrInUse        = group.ErrInUse        // a given group has processes in it
	ErrFrozen       = group.ErrFrozen       // the group is frozen
	ErrGone         = group.ErrGone         // there is no such group
	ErrBadPath      = group.ErrBadPath      // not a path of a container's group
	ErrNoController = group.ErrNoController // the machine cannot limit this
	ErrInvalid      = resources.ErrInvalid  // a value in linux.resources
	ErrDiffers      = resources.ErrDiffers  // check: another value than in the record
)
