package oci

import "errors"

// The texts of these are interface: engines tell by them what has happened.
var (
	// ErrExists is an id that is taken.
	ErrExists = errors.New("container with given ID already exists")
	// ErrInvalidID is an id that cannot be the name of a directory.
	ErrInvalidID = errors.New("invalid container ID format")
	// ErrNotExist is an id that nobody has.
	ErrNotExist = errors.New("container does not exist")
	// ErrDamaged is a state that we have not written.
	ErrDamaged = errors.New("the container's state is damaged (delete --force removes it)")
	// ErrUnsafeRoot is a --root that others than its owner can write to.
	ErrUnsafeRoot = errors.New("not safe to keep containers in")
	// ErrForeign is a directory below --root that holds more than a container's.
	ErrForeign = errors.New("this is no container's directory, or not only that: it is left")
	// ErrNotRunning is a container that has stopped.
	ErrNotRunning = errors.New("container not running")
	// ErrStopped is a container that cannot be started again.
	ErrStopped = errors.New("cannot start a container that has stopped")
	// ErrStarted is a container that has been started already.
	ErrStarted = errors.New("cannot start an already running container")
	// ErrStartPaused is a created container that would not go on when started.
	ErrStartPaused = errors.New("cannot start a container in the paused state (resume it first)")
	// ErrNoProcess is a container that was created without a process.
	ErrNoProcess = errors.New("cannot start a container whose config has no process")
	// ErrExecStopped is an exec in a container that has stopped.
	ErrExecStopped = errors.New("cannot exec in a stopped container")
	// ErrExecPaused is an exec that would wait for the container to be resumed.
	ErrExecPaused = errors.New("cannot exec in a paused container (use --ignore-paused to override)")
	// ErrNotPaused is a container that cannot be resumed.
	ErrNotPaused = errors.New("container not paused")
	// ErrNotStopped is a container that is deleted only by force.
	ErrNotStopped = errors.New("container is not stopped")
	// ErrConsole is a terminal that nobody would hold, or that there is not.
	ErrConsole = errors.New("--console-socket goes with --detach and process.terminal")
)
