package container

import (
	"maps"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"shocker.sh/shocker-run/internal/seccomp"
)

// What of the specification is there (features.md), from the tables that are
// used to read a config.

// Namespaces are the kinds that can be made or joined.
func Namespaces() []string { return names(namespaceFlags) }

// Capabilities are the names that are known.
func Capabilities() []string {
	all := make([]string, len(capNames))
	for i, name := range capNames {
		all[i] = "CAP_" + name
	}
	return all
}

// Seccomp is what a seccomp profile may say.
func Seccomp() *features.Seccomp {
	yes := seccomp.Native() != ""
	s := &features.Seccomp{Enabled: &yes, Actions: seccomp.Actions(), Operators: seccomp.Operators(), Archs: seccomp.Archs()}
	s.KnownFlags, s.SupportedFlags = seccomp.Flags()
	return s
}

// Hooks are the moments at which hooks run.
func Hooks() []string { return slices.Sorted(maps.Keys(hooksOf(&specs.Hooks{}))) }

// MountOptions are the options that are not given on to the file system.
func MountOptions() []string {
	all := []string{"bind", "rbind", "remount", "idmap", "ridmap", "tmpcopyup"}
	for name := range attrs {
		all = append(all, name, "r"+name)
	}
	for name := range propagations {
		all = append(all, name, "r"+name)
	}
	all = slices.AppendSeq(all, maps.Keys(superFlags))
	all = slices.AppendSeq(all, maps.Keys(ignored))
	slices.Sort(all)
	return slices.Compact(all)
}

// MemoryModes are the modes of a memory policy.
func MemoryModes() []string { return names(memoryModes) }

// MemoryFlags are the flags of a memory policy's mode.
func MemoryFlags() []string { return names(memoryFlags) }

func names[K ~string, V any](table map[K]V) []string {
	var all []string
	for name := range table {
		all = append(all, string(name))
	}
	slices.Sort(all)
	return all
}
