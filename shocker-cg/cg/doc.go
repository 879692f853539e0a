// Package cg is the part that makes, limits, watches, freezes and kills the
// cgroups of containers: the stage shocker-cg, its commands, and functions for
// other programs.
//
// # Whose word counts
//
// What a container may use stands in the record, linux.resources. A flag of
// `up` that is given is written there, over what there is. A default, from the
// environment (SHOCKER_CPU_SHARE, SHOCKER_MEM_LIMIT) or built in, is written
// only where the record says nothing. Then the record is applied, all of it.
//
// # Why no library for cgroups
//
// opencontainers/cgroups v0.1.0 was measured first. Beside the command line
// parser and the spec's types, its packages fs and fs2 take 0.9 ms of every
// start (2.9 against 1.9, p10 of 300 starts in turn): they link net, D-Bus,
// crypto and logging, which every container would pay for. What linux.resources
// needs is a table of files, in lib/cgroup/resources, and one BPF program, in
// lib/cgroup/devices. The library is used by the tests,
// which compare, file by file, what it makes of a config with what we make.
package cg
