package net

import "errors"

var (
	// ErrOverlap is a subnet that the host uses already.
	ErrOverlap = errors.New("overlaps")
	// ErrBridge is an interface of the bridge's name that is somebody else's.
	ErrBridge = errors.New("is not ours")
	// ErrMissing is something that up made and that is not there any more.
	ErrMissing = errors.New("is missing")
)
