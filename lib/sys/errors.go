package sys

import "errors"

// ErrNotRegular is a file that is a device, a FIFO, a directory or the like.
var ErrNotRegular = errors.New("not a regular file")
