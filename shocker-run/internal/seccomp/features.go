package seccomp

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// What a profile may say, for `features`; a test compiles each.

// Actions are those that are known.
func Actions() []string {
	return []string{
		string(specs.ActAllow), string(specs.ActErrno), string(specs.ActKill), string(specs.ActKillProcess), string(specs.ActKillThread),
		string(specs.ActLog), string(specs.ActNotify), string(specs.ActTrace), string(specs.ActTrap),
	}
}

// Operators are those that are known.
func Operators() []string {
	return []string{
		string(specs.OpEqualTo), string(specs.OpGreaterEqual), string(specs.OpGreaterThan), string(specs.OpLessEqual),
		string(specs.OpLessThan), string(specs.OpMaskedEqual), string(specs.OpNotEqual),
	}
}

// Archs are the architectures whose system calls are known.
func Archs() []string {
	var all []string
	for _, a := range arches {
		all = append(all, string(a.name))
	}
	slices.Sort(all)
	return all
}

var flagBits = []struct {
	name specs.LinuxSeccompFlag
	bits uintptr // as the kernel knows the flag
}{
	{specs.LinuxSeccompFlagLog, unix.SECCOMP_FILTER_FLAG_LOG},
	{specs.LinuxSeccompFlagSpecAllow, unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW},
	{flagTsync, unix.SECCOMP_FILTER_FLAG_TSYNC},
	{specs.LinuxSeccompFlagWaitKillableRecv, unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV | unix.SECCOMP_FILTER_FLAG_NEW_LISTENER},
}

// Flags are those that are known, and those of them that this kernel has too:
// it looks at them before it misses the program.
func Flags() (known, supported []string) {
	for _, f := range flagBits {
		known = append(known, string(f.name))
		if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, f.bits, 0); errno == unix.EFAULT {
			supported = append(supported, string(f.name))
		}
	}
	return known, supported
}
