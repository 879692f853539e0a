package net

import "errors"

var (
	// ErrOverlap is a subnet that the host uses already.
	ErrOverlap = errors.New("overlaps")
	// ErrForeign is an interface of a name of ours that is somebody else's.
	ErrForeign = errors.New("is not ours")
	// ErrBridge is what cannot be the name of an interface.
	ErrBridge = errors.New("not a name of up to 15 bytes that an interface can have")
	// ErrMissing is something that up made and that is not there any more.
	ErrMissing = errors.New("is missing")
)
