// Package cgroup is a container's cgroup as an OCI runtime needs it: found by
// linux.cgroupsPath, made around a process, limited, written down, found again
// by later commands, removed. What it puts together lies in the packages below;
// a Group has the rest of what can be done with it.
//
// A tree of cgroups belongs either to us, and groups are directories that we
// make, or to a manager, systemd:
//
//	            ours                              a manager's
//	Make        directories, limits               a unit around a process of ours, directories that
//	                                              the manager does not make, limits by it and by us
//	(the container's first process joins)
//	Release     -                                 our process ends
//	Update      limits                            limits by it and by us
//	Stop        -                                 the unit is ended
//	undo log    directories go                    directories go, and with them the unit
package cgroup
