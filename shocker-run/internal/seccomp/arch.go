package seccomp

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// syscallNumbers are the numbers of a system call, in the order of arches; -1
// where there is none.
type syscallNumbers struct {
	name    string
	numbers [len(arches)]int32
}

// arch is an architecture that has a table.
type arch struct {
	name  specs.Arch
	audit uint32 // as the kernel says it: AUDIT_ARCH_
	bits  int    // that a condition sees of an argument
	first uint32 // number 0 of the table
	// table is how many numbers there can be that grow with the kernel; what is
	// above is something else.
	table uint64
	mux   bool // it has socketcall(2) and ipc(2)
}

// x32Bit marks the system calls of x32 on x86-64.
const x32Bit = 1 << 30

var arches = [...]arch{
	{name: specs.ArchX86_64, audit: unix.AUDIT_ARCH_X86_64, bits: 64, table: x32Bit},
	{name: specs.ArchX32, audit: unix.AUDIT_ARCH_X86_64, bits: 32, first: x32Bit, table: 1<<32 - x32Bit},
	{name: specs.ArchX86, audit: unix.AUDIT_ARCH_I386, bits: 32, table: 1 << 32, mux: true},
	{name: specs.ArchAARCH64, audit: unix.AUDIT_ARCH_AARCH64, bits: 64, table: 1 << 32},
	{name: specs.ArchARM, audit: unix.AUDIT_ARCH_ARM, bits: 32, table: 0xf0000},
}

// otherArches are known, and not found on a machine that we run on: what is
// said of them has no effect.
var otherArches = []specs.Arch{
	specs.ArchMIPS, specs.ArchMIPS64, specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32,
	specs.ArchPPC, specs.ArchPPC64, specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X, specs.ArchPARISC,
	specs.ArchPARISC64, specs.ArchRISCV64, specs.ArchLOONGARCH64, specs.ArchM68K, specs.ArchSH, specs.ArchSHEB,
}

// Native is the architecture that this program is built for, "" if it has no
// table.
func Native() specs.Arch {
	switch runtime.GOARCH {
	case "amd64":
		return specs.ArchX86_64
	case "arm64":
		return specs.ArchAARCH64
	}
	return ""
}

// lookup finds a system call by its name.
func lookup(name string) *syscallNumbers {
	i, ok := slices.BinarySearchFunc(syscalls[:], name, func(s syscallNumbers, name string) int {
		return strings.Compare(s.name, name)
	})
	if !ok {
		return nil
	}
	return &syscalls[i]
}

// nameOf is the name of an architecture's system call.
func nameOf(i int, number uint32) string {
	for _, s := range syscalls {
		if s.numbers[i] == int32(number) {
			return s.name
		}
	}
	return fmt.Sprint(number)
}

// The calls that x86 also makes through socketcall(2) and ipc(2), at their
// numbers there (include/uapi/linux/net.h, ipc.h).
var (
	socketCalls = [...]string{
		1: "socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername", "socketpair", "send", "recv",
		"sendto", "recvfrom", "shutdown", "setsockopt", "getsockopt", "sendmsg", "recvmsg", "accept4", "recvmmsg", "sendmmsg",
	}
	ipcCalls = [...]string{
		1: "semop", "semget", "semctl", "semtimedop",
		11: "msgsnd", "msgrcv", "msgget", "msgctl",
		21: "shmat", "shmdt", "shmget", "shmctl",
	}
)

// muxed says through which call x86 also makes the named one, and under which
// number there.
func muxed(name string) (through string, number int) {
	if i := slices.Index(socketCalls[:], name); i > 0 {
		return "socketcall", i
	}
	if i := slices.Index(ipcCalls[:], name); i > 0 {
		return "ipc", i
	}
	return "", 0
}
