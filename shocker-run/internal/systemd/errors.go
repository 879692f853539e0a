package systemd

import "errors"

var (
	// ErrNotRunning is a machine without systemd.
	ErrNotRunning = errors.New("systemd not running on this host, cannot use systemd cgroups manager")
	// ErrJob is a job that systemd could not do.
	ErrJob = errors.New("the job failed")
	// ErrTimeout is a job that took too long.
	ErrTimeout = errors.New("systemd did not finish the job in time")
)
