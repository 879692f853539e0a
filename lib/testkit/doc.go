// Package testkit gives a test a machine of its own.
//
// [Run] executes the test's binary a second time in new mount, PID, network,
// UTS, IPC and cgroup namespaces, with a btrfs store on a loop device, fresh
// /proc, /sys and /run, a private copy of all other files, and in a cgroup of
// its own in every hierarchy, which it sees as the root of the tree. Whatever
// the test does there ends with it: the last process of the PID namespace takes
// mounts, links and loop device along, and the outer process removes the
// cgroups.
//
//	outer       go test: makes directory, cgroups and store, waits, reports
//	 └ init     PID 1 of the host: mounts, then reaps whatever is orphaned
//	    └ test  the same test function, for which Run calls its argument
//
// Subtests of the inner process are reported as subtests of the outer one,
// with their verdicts, so nothing that was skipped there is lost.
package testkit
