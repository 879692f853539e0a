package seccomp

import "errors"

var (
	// ErrInvalid is a profile that says what cannot be.
	ErrInvalid = errors.New("invalid seccomp profile")
	// ErrTooLong is a profile whose program the kernel would not take.
	ErrTooLong = errors.New("seccomp profile is too long: the kernel takes 4096 instructions")
	// ErrUnsupported is a machine whose architecture has no table.
	ErrUnsupported = errors.New("seccomp is not supported on this architecture")
)
