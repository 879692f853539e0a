package devices

import "errors"

var (
	// ErrInvalid is a rule that cannot be meant.
	ErrInvalid = errors.New("invalid device rule")
	// ErrHole is a rule that takes away a part of what a rule with "*" gave;
	// v1 would ignore it in silence.
	ErrHole = errors.New("a device rule cannot take a part out of a wider one")
)
