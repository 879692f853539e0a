// Package group makes, fills, freezes, kills and removes one container's
// cgroup, which is a directory in every hierarchy of the machine.
//
// # Whose group is it?
//
// A group is made with the sticky bit in its mode. The bit comes into being
// with the directory, in one system call, means nothing on a cgroup, and is
// set by nobody else. So a group that was made by a command killed before it
// could write down the inode is still known as ours, and one that somebody
// else made at the same path, at any moment, is not. The order is
//
//	look that the path is free → write the undo → mkdir → add the inodes to the undo
//
// Several stores can have their groups below one parent. Whose a group is
// without its undo tells an attribute of it, the owner. It is set last, so what
// has none is in the undo, or is left alone.
//
// Parents on the way (SHOCKER_CGROUP) that do not exist are made in the same
// way, and removed with the last group below them.
package group
