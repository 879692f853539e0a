package untar

import "errors"

var (
	// ErrClimbs is an entry that would lie, or lead, outside the root.
	ErrClimbs = errors.New("leads out of the image")
	// ErrLimit is a layer that is larger than any real one.
	ErrLimit = errors.New("is beyond the limit")
	// ErrEntry is an entry that cannot be what it says.
	ErrEntry = errors.New("is not valid")
)
