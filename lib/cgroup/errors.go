package cgroup

import "errors"

// ErrUnit is a cgroupsPath that is not SLICE:PREFIX:NAME.
var ErrUnit = errors.New("invalid cgroupsPath of a systemd cgroup")
