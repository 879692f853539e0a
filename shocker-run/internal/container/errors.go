package container

import "errors"

var (
	// ErrInvalid is a config that asks for what cannot be.
	ErrInvalid = errors.New("invalid config")
	// ErrUnsupported is a config that asks for what this runtime does not do.
	ErrUnsupported = errors.New("not supported")
	// ErrNotFound is a program that is not there: exit status 127.
	ErrNotFound = errors.New("executable file not found")
	// ErrNotExecutable is a program that cannot be executed: exit status 126.
	ErrNotExecutable = errors.New("cannot be executed")
	// ErrUnsafeMount is a mount whose place in the image is a symbolic link
	// that could lead elsewhere.
	ErrUnsafeMount = errors.New("mount point is a symbolic link")
	// ErrGone is a container whose process is no longer there.
	ErrGone = errors.New("not running")
)
