package seccomp

import (
	"encoding/binary"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

//go:generate go test -run TestAhead -update .

// ahead is the filter of the profile that shocker-spec gives a container with the
// default capabilities, compiled when the program was built; of any other, nil.
// To compare the whole profile costs a third of compiling it.
func ahead(profile *specs.LinuxSeccomp, native specs.Arch) *Filter {
	if string(canonical(profile, native)) != aheadProfile {
		return nil
	}
	return &Filter{Program: aheadProgram, Flags: aheadFlags}
}

// canonical is all that a profile says, for a comparison: texts and lists have
// their length in front, and a number that may be missing is one more than it is.
func canonical(p *specs.LinuxSeccomp, native specs.Arch) []byte {
	b := make([]byte, 0, 8<<10)
	number := func(n uint64) { b = binary.AppendUvarint(b, n) }
	text := func(s string) {
		number(uint64(len(s)))
		b = append(b, s...)
	}
	optional := func(n *uint) {
		if n == nil {
			number(0)
			return
		}
		number(uint64(*n) + 1)
	}
	text(string(native))
	text(string(p.DefaultAction))
	optional(p.DefaultErrnoRet)
	number(uint64(len(p.Architectures)))
	for _, a := range p.Architectures {
		text(string(a))
	}
	if p.Flags != nil { // none at all are others: see flags
		number(uint64(len(p.Flags)) + 1)
	} else {
		number(0)
	}
	for _, f := range p.Flags {
		text(string(f))
	}
	text(p.ListenerPath)
	text(p.ListenerMetadata)
	number(uint64(len(p.Syscalls)))
	for i := range p.Syscalls {
		call := &p.Syscalls[i]
		number(uint64(len(call.Names)))
		for _, name := range call.Names {
			text(name)
		}
		text(string(call.Action))
		optional(call.ErrnoRet)
		number(uint64(len(call.Args)))
		for _, arg := range call.Args {
			number(uint64(arg.Index))
			number(arg.Value)
			number(arg.ValueTwo)
			text(string(arg.Op))
		}
	}
	return b
}
