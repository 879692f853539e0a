package seccomp

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// data is struct seccomp_data: what the kernel shows a program.
type data struct {
	number uint32
	audit  uint32
	args   [6]uint64
}

func (d data) bytes() []byte {
	b := binary.LittleEndian.AppendUint32(nil, d.number)
	b = binary.LittleEndian.AppendUint32(b, d.audit)
	b = binary.LittleEndian.AppendUint64(b, 0) // instruction pointer
	for _, a := range d.args {
		b = binary.LittleEndian.AppendUint64(b, a)
	}
	return b
}

// interpret runs a program as the kernel does, of the instructions that
// seccomp may use (kernel/seccomp.c, seccomp_check_filter) those that we
// emit. It returns how many were executed, too.
func interpret(program []unix.SockFilter, d data) (result uint32, steps int, err error) {
	mem := d.bytes()
	var a uint32
	for pc := 0; pc < len(program); steps++ {
		in := program[pc]
		pc++
		cond := false
		switch in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			if in.K%4 != 0 || in.K > 60 {
				return 0, steps, fmt.Errorf("instruction %d loads from %d", pc-1, in.K)
			}
			a = binary.LittleEndian.Uint32(mem[in.K:])
			continue
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			a &= in.K
			continue
		case unix.BPF_RET | unix.BPF_K:
			return in.K, steps + 1, nil
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(in.K)
			continue
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			cond = a == in.K
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			cond = a >= in.K
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			cond = a > in.K
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			cond = a&in.K != 0
		default:
			return 0, steps, fmt.Errorf("instruction %d is %#x", pc-1, in.Code)
		}
		if cond {
			pc += int(in.Jt)
		} else {
			pc += int(in.Jf)
		}
	}
	return 0, steps, fmt.Errorf("the program has no end")
}

// verdict runs a profile's program for a system call of an architecture.
func verdict(t testing.TB, f *Filter, d data) uint32 {
	t.Helper()
	got, _, err := interpret(f.Program, d)
	if err != nil {
		t.Fatalf("%+v: %v", d, err)
	}
	return got
}

// naive says what a profile means, by looking at all of it for each system
// call.
func naive(p *specs.LinuxSeccomp, native specs.Arch, d data) uint32 {
	otherwise, err := action(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		panic(err)
	}
	on := func(name specs.Arch) bool { return name == native || slices.Contains(p.Architectures, name) }
	i := slices.IndexFunc(arches[:], func(a arch) bool {
		isX32 := d.audit == unix.AUDIT_ARCH_X86_64 && d.number >= x32Bit
		return a.audit == d.audit && (a.name == specs.ArchX32) == isX32
	})
	if i < 0 {
		return unix.SECCOMP_RET_KILL_THREAD
	}
	if !on(arches[i].name) {
		if d.number == 1<<32-1 && arches[i].name == specs.ArchX32 && on(specs.ArchX86_64) {
			return otherwise
		}
		return unix.SECCOMP_RET_KILL_THREAD
	}
	number := int64(d.number - arches[i].first)
	newest := int64(-1)
	var found []rule
	for _, call := range p.Syscalls {
		rules, err := rulesOf(&call)
		if err != nil {
			panic(err)
		}
		for _, name := range call.Names {
			s := lookup(name)
			if s == nil {
				continue
			}
			n := int64(s.numbers[i])
			if n < int64(arches[i].table) {
				newest = max(newest, n)
			}
			through, sub := muxed(name)
			if arches[i].mux && sub > 0 {
				newest = max(newest, int64(lookup(through).numbers[i]))
			}
			for _, r := range rules {
				if r.action == otherwise {
					continue
				}
				if n == number {
					found = append(found, r)
				}
				if arches[i].mux && sub > 0 && int64(lookup(through).numbers[i]) == number {
					conds := []cond{{0, specs.OpEqualTo, ^uint64(0), uint64(sub)}}
					for _, c := range r.conds {
						if c.arg > 0 {
							conds = append(conds, c)
						}
					}
					found = append(found, rule{conds, r.action})
				}
			}
		}
	}
	if newest >= 0 && number > newest && number < int64(arches[i].table) && !allows(otherwise) {
		return unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	}
	holds := func(c cond) bool {
		arg := d.args[c.arg]
		if arches[i].bits == 32 {
			arg, c.mask, c.value = uint64(uint32(arg)), uint64(uint32(c.mask)), uint64(uint32(c.value))
		}
		switch arg &= c.mask; c.op {
		case specs.OpEqualTo, specs.OpMaskedEqual:
			return arg == c.value
		case specs.OpNotEqual:
			return arg != c.value
		case specs.OpLessThan:
			return arg < c.value
		case specs.OpLessEqual:
			return arg <= c.value
		case specs.OpGreaterThan:
			return arg > c.value
		default:
			return arg >= c.value
		}
	}
	for k := range found {
		found[k].conds = narrow(found[k].conds, arches[i].bits)
		if len(found[k].conds) == 0 {
			return found[k].action
		}
	}
	slices.SortStableFunc(found, before)
	for _, r := range found {
		if !slices.ContainsFunc(r.conds, func(c cond) bool { return !holds(c) }) {
			return r.action
		}
	}
	return otherwise
}
