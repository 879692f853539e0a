// Package oci is shocker-oci, the command line of an OCI runtime as engines
// call it: containerd, Docker, Podman, CRI-O and Nomad can run containers with
// it. Commands, flags and the errors that engines read are those of runc; what
// they do is the lifecycle of the OCI runtime-spec, runtime.md.
//
// What a container leaves below --root:
//
//	ROOT/ID/state.json         what `state` tells, and the identity of its process
//	ROOT/ID/config.json        the config that it runs with
//	ROOT/ID/lock               held by who changes something
//	ROOT/ID/undo/              what delete undoes: the cgroup (lib/undo)
//	ROOT/ID/notify/            where it tells a service manager that it is ready (sd_notify(3))
//	ROOT/ID/table hold status  only between create and start (lib/spawn)
//
// Whether a container is created, runs, is paused or has stopped is asked of
// the kernel each time: the identity of its process, the table that a process
// before its start waits in, and its freezer.
package oci

// Name of the program.
const Name = "shocker-oci"
