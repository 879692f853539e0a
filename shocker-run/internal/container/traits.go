package container

import (
	"encoding/binary"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Personality and memory policy are a thread's own and outlive execve(2): the
// process sets them itself.

var personalities = map[specs.LinuxPersonalityDomain]int{specs.PerLinux: 0, specs.PerLinux32: 8}

// parsePersonality reads linux.personality (personality(2)).
func parsePersonality(p *specs.LinuxPersonality) (int, error) {
	domain, ok := personalities[p.Domain]
	if !ok {
		return 0, fmt.Errorf("%w: linux.personality.domain %q: want one of %q", ErrInvalid, p.Domain, knownOf(personalities))
	}
	if len(p.Flags) > 0 {
		return 0, fmt.Errorf("%w: linux.personality flag %q: the specification defines none", ErrInvalid, p.Flags[0])
	}
	return domain, nil
}

var memoryModes = map[specs.MemoryPolicyModeType]int{
	specs.MpolDefault: 0, specs.MpolPreferred: 1, specs.MpolBind: 2, specs.MpolInterleave: 3,
	specs.MpolLocal: 4, specs.MpolPreferredMany: 5, specs.MpolWeightedInterleave: 6,
}

var memoryFlags = map[specs.MemoryPolicyFlagType]int{
	specs.MpolFNumaBalancing: 1 << 13, specs.MpolFRelativeNodes: 1 << 14, specs.MpolFStaticNodes: 1 << 15,
}

// parseMemoryPolicy reads linux.memoryPolicy as set_mempolicy(2) takes it.
func parseMemoryPolicy(m *specs.LinuxMemoryPolicy) (mode int, nodes []uint64, _ error) {
	mode, ok := memoryModes[m.Mode]
	if !ok {
		return 0, nil, fmt.Errorf("%w: linux.memoryPolicy: invalid memory policy mode %q", ErrInvalid, m.Mode)
	}
	for _, name := range m.Flags {
		flag, ok := memoryFlags[name]
		if !ok {
			return 0, nil, fmt.Errorf("%w: linux.memoryPolicy: invalid memory policy flag %q", ErrInvalid, name)
		}
		mode |= flag
	}
	nodes, err := parseList(m.Nodes)
	if err != nil {
		return 0, nil, fmt.Errorf("linux.memoryPolicy: invalid memory policy node: %w", err)
	}
	return mode, nodes, nil
}

// traits sets what of linux belongs to each process of the container.
func (b *builder) traits(linux *specs.Linux) error {
	if p := linux.Personality; p != nil {
		domain, err := parsePersonality(p)
		if err != nil {
			return err
		}
		b.Call(fmt.Sprintf("set personality %s", p.Domain), unix.SYS_PERSONALITY, domain)
	}
	if m := linux.MemoryPolicy; m != nil {
		mode, nodes, err := parseMemoryPolicy(m)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("set memory policy %s %s", m.Mode, m.Nodes)
		if len(nodes) == 0 {
			b.Call(name, unix.SYS_SET_MEMPOLICY, mode, 0, 0)
			return nil
		}
		var mask []byte
		for _, word := range nodes {
			mask = binary.NativeEndian.AppendUint64(mask, word)
		}
		// The kernel takes the number of bits plus one.
		b.Call(name, unix.SYS_SET_MEMPOLICY, mode, mask, 64*len(nodes)+1)
	}
	return nil
}
