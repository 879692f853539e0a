// Package spawn starts processes in namespaces without cgo, without executing
// itself again, and without any Go code running in the child.
//
// One page of assembly clones a child that runs a table of system calls. The
// table is written by ordinary Go in the parent, which does all the thinking;
// the child reads only the table, in memory that both share, and uses
// neither stack nor heap. It ends in execve(2), so that nothing of ours stays
// behind. A step that fails stores its errno, and the parent names it.
//
//	parent (P)                            child (C1)            C2
//	NewTable, Call..., Start ──clone3──▶  join user namespace
//	                                      Clone ──clone3────▶   child of P
//	Notified  ◀────────── "n" ────────────────────────────────  Notify
//	Release   ──────────  "g" ───────────────────────────────▶  Wait
//	Started   ◀────── end of file (CLOEXEC) ──────────────────  Exec
//	Wait      ◀────── pidfd ──────────────────────────────────  exit
//
// The two pipes carry single bytes. What the child writes to ends when it has
// executed the program or has died; what it reads from ends when the parent
// has died, and then it exits: nothing waits for ever.
//
// The address space is a copy, not shared as with vfork: with shared memory
// the child's oom_score_adj would be the parent's too, the OOM killer would
// end both, and a time namespace could not be joined.
package spawn
