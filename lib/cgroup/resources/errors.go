package resources

import "errors"

var (
	// ErrInvalid is a value in linux.resources that cannot be meant.
	ErrInvalid = errors.New("invalid resource")
	// ErrDiffers is a group that does not have the values it should.
	ErrDiffers = errors.New("the cgroup differs from the record")
)
