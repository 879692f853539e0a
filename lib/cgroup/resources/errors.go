package resources

import "errors"

var (
	// ErrInvalid is a value in linux.resources that cannot be meant.
	ErrInvalid = errors.New("invalid resource")
	// ErrNotBytes is a text that is no amount of memory.
	ErrNotBytes = errors.New("not an amount such as 1073741824b, 64m or 1.5g")
	// ErrTooManyBytes is an amount that 63 bits do not hold.
	ErrTooManyBytes = errors.New("more than 2^63 bytes")
	// ErrDiffers is a group that does not have the values it should.
	ErrDiffers = errors.New("the cgroup differs from the record")
)
