package record

import "errors"

var (
	// ErrInvalid is a record that cannot be read as one.
	ErrInvalid = errors.New("not a valid record")
	// ErrNoID is a record without the annotation sh.shocker.id.
	ErrNoID = errors.New("not a valid record: no annotation " + AnnotationID)
	// ErrBadID is an id that cannot name a directory.
	ErrBadID = errors.New("not a valid container id")
	// ErrEmpty is an input in which there was no record at all.
	ErrEmpty = errors.New("no record on the input")
)
