package hierarchy

import "errors"

// ErrNone is a machine, or a container, that shows us no cgroups.
var ErrNone = errors.New("no cgroup hierarchy is mounted")
