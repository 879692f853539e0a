package seccomp

import (
	"fmt"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Filter is a compiled profile, as seccomp(2) takes it.
type Filter struct {
	Program []unix.SockFilter
	Flags   uint // SECCOMP_FILTER_FLAG_
}

// Listens says whether loading the filter returns a descriptor from which an
// agent learns of system calls.
func (f *Filter) Listens() bool { return f.Flags&unix.SECCOMP_FILTER_FLAG_NEW_LISTENER != 0 }

// Compile compiles a profile for a machine of the given architecture. A
// profile that says nothing is none: the filter is nil.
func Compile(profile *specs.LinuxSeccomp, native specs.Arch) (*Filter, error) {
	if profile == nil || profile.DefaultAction == "" && len(profile.Syscalls) == 0 {
		return nil, nil
	}
	if f := ahead(profile, native); f != nil {
		return f, nil
	}
	return compile(profile, native)
}

func compile(profile *specs.LinuxSeccomp, native specs.Arch) (*Filter, error) {
	c := &compiler{}
	if err := c.setArches(profile.Architectures, native); err != nil {
		return nil, err
	}
	var err error
	if c.otherwise, err = action(profile.DefaultAction, profile.DefaultErrnoRet); err != nil {
		return nil, err
	}
	for i := range profile.Syscalls {
		if err := c.add(&profile.Syscalls[i]); err != nil {
			return nil, err
		}
	}
	f := &Filter{}
	if f.Flags, err = c.flags(profile); err != nil {
		return nil, err
	}
	if f.Program, err = c.assemble(); err != nil {
		return nil, err
	}
	if len(f.Program) > unix.BPF_MAXINSNS {
		return nil, fmt.Errorf("%w: it has %d", ErrTooLong, len(f.Program))
	}
	return f, nil
}

// flagTsync stands in profiles, though the spec lists it no more.
const flagTsync specs.LinuxSeccompFlag = "SECCOMP_FILTER_FLAG_TSYNC"

// compiler gathers what a profile says.
type compiler struct {
	otherwise uint32 // the default action
	listens   bool
	rules     []rule
	tables    [len(arches)]table
}

// table is what is said of one architecture's system calls.
type table struct {
	listed bool
	newest int64 // the highest number that the profile names; -1: none
	// entries are number << 32 | index of a rule, in the profile's order.
	entries []uint64
}

func (c *compiler) setArches(listed []specs.Arch, native specs.Arch) error {
	known := false
	for i := range arches {
		c.tables[i].newest = -1
		c.tables[i].listed = arches[i].name == native || slices.Contains(listed, arches[i].name)
		known = known || arches[i].name == native
	}
	if !known {
		return fmt.Errorf("%w: %q", ErrUnsupported, native)
	}
	for _, name := range listed {
		if !slices.Contains(otherArches, name) && !slices.ContainsFunc(arches[:], func(a arch) bool { return a.name == name }) {
			return fmt.Errorf("%w: unknown architecture %q", ErrInvalid, name)
		}
	}
	return nil
}

// flags are those of the profile. Without any, speculation is as with runc; a
// thread that has no others needs none of their synchronisation.
func (c *compiler) flags(profile *specs.LinuxSeccomp) (uint, error) {
	var flags uint
	if profile.Flags == nil {
		flags = unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
	}
	for _, f := range profile.Flags {
		switch f {
		case specs.LinuxSeccompFlagLog:
			flags |= unix.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			flags |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		case specs.LinuxSeccompFlagWaitKillableRecv:
			if !c.listens {
				return 0, fmt.Errorf("%w: flag %s without the action %s", ErrInvalid, f, specs.ActNotify)
			}
			flags |= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
		case flagTsync:
		default:
			return 0, fmt.Errorf("%w: unknown flag %q", ErrInvalid, f)
		}
	}
	if c.listens {
		if profile.ListenerPath == "" {
			return 0, fmt.Errorf("%w: action %s without a listenerPath", ErrInvalid, specs.ActNotify)
		}
		flags |= unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	}
	if profile.ListenerPath == "" && profile.ListenerMetadata != "" {
		return 0, fmt.Errorf("%w: listenerMetadata without a listenerPath", ErrInvalid)
	}
	return flags, nil
}

// add takes up one entry of the profile.
func (c *compiler) add(call *specs.LinuxSyscall) error {
	rules, err := rulesOf(call)
	if err != nil {
		return err
	}
	act := rules[0].action
	c.listens = c.listens || act == unix.SECCOMP_RET_USER_NOTIF
	first := len(c.rules)
	c.rules = append(c.rules, rules...)
	last := len(c.rules)
	for _, name := range call.Names {
		if name == "" {
			return fmt.Errorf("%w: a system call without a name", ErrInvalid)
		}
		s := lookup(name)
		if s == nil {
			continue
		}
		for i := range arches {
			t := &c.tables[i]
			if !t.listed {
				continue
			}
			if n := s.numbers[i]; n >= 0 {
				if uint64(n) < arches[i].table {
					t.newest = max(t.newest, int64(n))
				}
				for r := first; r < last && act != c.otherwise; r++ {
					t.entries = append(t.entries, uint64(n)<<32|uint64(r))
				}
			}
			if arches[i].mux {
				c.addMuxed(i, name, rules)
			}
		}
	}
	return nil
}

// addMuxed takes up that a call is also made through another.
func (c *compiler) addMuxed(i int, name string, rules []rule) {
	through, number := muxed(name)
	if number == 0 {
		return
	}
	n := lookup(through).numbers[i]
	c.tables[i].newest = max(c.tables[i].newest, int64(n))
	for _, r := range rules {
		if r.action == c.otherwise {
			return
		}
		conds := []cond{{arg: 0, op: specs.OpEqualTo, mask: ^uint64(0), value: uint64(number)}}
		for _, other := range r.conds {
			if other.arg != 0 {
				conds = append(conds, other)
			}
		}
		c.tables[i].entries = append(c.tables[i].entries, uint64(n)<<32|uint64(len(c.rules)))
		c.rules = append(c.rules, rule{conds, r.action})
	}
}

// span is the range of numbers from first to the next span's.
type span struct {
	first  uint32
	action uint32
	rules  []rule // asked before the action counts
	bits   int
}

// decide says what counts of the rules of one number.
func (c *compiler) decide(entries []uint64, bits int) (span, error) {
	for _, e := range entries {
		r := c.rules[uint32(e)]
		if len(r.conds) == 0 || !slices.ContainsFunc(r.conds, func(c cond) bool { return c.seen(bits).mask != 0 }) {
			return span{action: r.action}, nil
		}
	}
	rules := make([]rule, len(entries))
	for i, e := range entries {
		r := c.rules[uint32(e)]
		rules[i] = rule{narrow(r.conds, bits), r.action}
	}
	rules, err := inOrder(rules)
	return span{action: c.otherwise, rules: rules, bits: bits}, err
}

// spans are what is said of an architecture's numbers, in their order.
func (c *compiler) spans(i int) ([]span, error) {
	a, t := arches[i], &c.tables[i]
	if !t.listed {
		return []span{{first: a.first, action: unix.SECCOMP_RET_KILL_THREAD}}, nil
	}
	slices.Sort(t.entries)
	spans := make([]span, 0, 128)
	spans = append(spans, span{first: a.first, action: c.otherwise})
	put := func(s span) {
		last := &spans[len(spans)-1]
		switch {
		case s.first == last.first:
			*last = s
		case len(s.rules)+len(last.rules) == 0 && s.action == last.action:
			return
		default:
			spans = append(spans, s)
			return
		}
		// What took another's place may be the same as what is before it.
		if n := len(spans); n > 1 && len(s.rules)+len(spans[n-2].rules) == 0 && s.action == spans[n-2].action {
			spans = spans[:n-1]
		}
	}
	end := a.table
	unknown := func(from uint64) { // numbers that the profile's author did not know
		if t.newest >= 0 && !allows(c.otherwise) && from < end {
			put(span{first: a.first + uint32(from), action: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)})
			if end < x32Bit { // above are others of its own
				put(span{first: a.first + uint32(end), action: c.otherwise})
			}
		}
	}
	past := false
	for n := 0; n < len(t.entries); {
		number := uint32(t.entries[n] >> 32)
		if int64(number) > t.newest && !past {
			past = true
			unknown(uint64(t.newest + 1))
		}
		begin := n
		for n < len(t.entries) && uint32(t.entries[n]>>32) == number {
			n++
		}
		s, err := c.decide(t.entries[begin:n], a.bits)
		if err != nil {
			return nil, fmt.Errorf("%w: system call %s of %s", err, nameOf(i, number), a.name)
		}
		s.first = a.first + number
		put(s)
		put(span{first: a.first + number + 1, action: c.otherwise})
	}
	if !past {
		unknown(uint64(t.newest + 1))
	}
	return spans, nil
}

// assemble writes the program: the architectures one after the other, the
// machine's own first.
func (c *compiler) assemble() ([]unix.SockFilter, error) {
	a := &asm{code: make([]unix.SockFilter, 0, 1024), rets: map[uint32]label{}}
	next := a.ret(unix.SECCOMP_RET_KILL_THREAD)
	for i := len(arches) - 1; i >= 0; i-- {
		isX86 := arches[i].name == specs.ArchX86_64 // and x32, which is next in the list
		if arches[i].name == specs.ArchX32 || !c.tables[i].listed && !(isX86 && c.tables[i+1].listed) {
			continue
		}
		spans, err := c.spans(i)
		if err != nil {
			return nil, err
		}
		if isX86 {
			high, err := c.x32(i + 1)
			if err != nil {
				return nil, err
			}
			spans = append(spans, high...)
		}
		section := a.load(offNumber, a.search(spans))
		next = a.jump(unix.BPF_JEQ, arches[i].audit, section, next)
	}
	a.load(offArch, next)
	return a.program(), nil
}

// x32 are the spans of x86-64's numbers with the bit of x32. Where x32 is not
// listed, -1 is no system call of it: a tracer skips a call so.
func (c *compiler) x32(i int) ([]span, error) {
	spans, err := c.spans(i)
	if err == nil && !c.tables[i].listed && c.tables[i-1].listed {
		spans = append(spans, span{first: 1<<32 - 1, action: c.otherwise})
	}
	return spans, err
}

// search finds the span of the loaded number.
func (a *asm) search(spans []span) label {
	if len(spans) == 1 {
		return a.ask(spans[0].rules, spans[0].bits, a.ret(spans[0].action))
	}
	middle := len(spans) / 2
	high := a.search(spans[middle:])
	low := a.search(spans[:middle])
	return a.jump(unix.BPF_JGE, spans[middle].first, high, low)
}
