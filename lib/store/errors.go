package store

import "errors"

var (
	// ErrNoImage is an image that does not exist.
	ErrNoImage = errors.New("no such image")
	// ErrNoContainer is a container that does not exist.
	ErrNoContainer = errors.New("no such container")
	// ErrNameTaken is a name that another container has.
	ErrNameTaken = errors.New("name is in use")
	// ErrDamaged is a container or image whose files do not say what it is:
	// emptied by a power cut, or changed by hand.
	ErrDamaged = errors.New("is damaged")
	// ErrNoBtrfs is a kernel without btrfs.
	ErrNoBtrfs = errors.New("this kernel has no btrfs")
	// ErrNoStore is a store that has not been made yet.
	ErrNoStore = errors.New("no store yet")
)

// notExist is an error in the words that users see, with a sentinel behind.
type notExist struct {
	text string
	is   error
}

func (e *notExist) Error() string { return e.text }
func (e *notExist) Unwrap() error { return e.is }
