package hierarchy

import "errors"

var (
	// ErrNone is a machine, or a container, that shows us no cgroups.
	ErrNone = errors.New("no cgroup hierarchy is mounted")
	// ErrOutside is a process whose cgroup cannot be seen from here.
	ErrOutside = errors.New("the cgroup is not below the mount")
)
