package group

import "errors"

var (
	// ErrExists is a group that is in the way.
	ErrExists = errors.New("the cgroup exists already, and is left alone")
	// ErrInUse is a given group with processes in it.
	ErrInUse = errors.New("the cgroup has processes in it")
	// ErrFrozen is a group that is frozen.
	ErrFrozen = errors.New("the cgroup is frozen")
	// ErrGone is a group that is not there.
	ErrGone = errors.New("there is no such cgroup")
	// ErrExec is a program that could not be executed.
	ErrExec = errors.New("execute")
	// ErrBadPath is a path that cannot be a container's cgroup.
	ErrBadPath = errors.New("not a cgroup path")
	// ErrNoController is a controller that the machine has not, or has not
	// handed down to where the group is.
	ErrNoController = errors.New("the controller is not available")
)
