// Package seccomp compiles the seccomp profile of an OCI config (runtime-spec,
// config-linux.md, "Seccomp") to a classic BPF program, without libseccomp.
//
// A profile means here what it means to runc with libseccomp, where the spec
// is silent:
//
//   - A system call of an architecture that is neither the machine's nor listed
//     kills the thread; so does one with the bit of x32 if that is not listed.
//   - A rule without conditions outdoes those with, and of several the first
//     counts. Of rules with conditions that all match, the one counts that
//     libseccomp's tree asks first, see before in rules.go.
//   - A rule whose action is the default one is left out: "refuse this, allow
//     the rest" has to be said the other way round.
//   - Two conditions on one argument make the conditions rules of their own.
//   - Conditions see 32 bits of an argument on 32-bit architectures.
//   - On x86 a rule for a socket or SysV IPC call is also one for its number in
//     socketcall(2) and ipc(2), and there its first condition is that number.
//   - A name that is a system call of no architecture is ignored.
//   - A system call newer than the newest one that the profile names answers
//     ENOSYS, so that programs fall back, unless the default action allows.
//
// The program is a binary search over ranges of numbers with the same answer:
//
//	architecture? ─▶ number ≥ n? ─▶ number ≥ m? ─▶ ... ─▶ return action
//	                                                  └──▶ conditions on arguments
//
// The kernel runs it for every number at load time, to remember those that are
// allowed whatever their arguments (kernel 5.11, kernel/seccomp.c,
// seccomp_cache_prepare), so a linear list would be paid for twice.
package seccomp

//go:generate sh -c "go run ./mktables >zsyscalls.go.new && mv zsyscalls.go.new zsyscalls.go"
