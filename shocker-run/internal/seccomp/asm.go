package seccomp

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data, of which a program reads words.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16 // six of 64 bits; the lower half first on our machines
)

// label is a place in a program: how many instructions there are from it to
// the end. Jumps go only forward.
type label int

// asm is a program that is written from its end to its beginning, so that the
// places where jumps lead are known.
type asm struct {
	code []unix.SockFilter // the last instruction first
	rets map[uint32]label  // the latest return of each value
}

func (a *asm) emit(code uint16, jt, jf uint8, k uint32) label {
	a.code = append(a.code, unix.SockFilter{Code: code, Jt: jt, Jf: jf, K: k})
	return label(len(a.code))
}

// reach is how far a conditional jump goes, less the instruction that the
// other way of the same jump may need.
const reach = 255 - 1

func (a *asm) distance(to label) int { return len(a.code) - int(to) }

// near is a place within reach that is, or leads to, the given one.
func (a *asm) near(to label) label {
	if a.distance(to) <= reach {
		return to
	}
	if last := a.code[to-1]; last.Code == unix.BPF_RET|unix.BPF_K {
		return a.ret(last.K)
	}
	return a.emit(unix.BPF_JMP|unix.BPF_JA, 0, 0, uint32(a.distance(to)))
}

// ret returns a value.
func (a *asm) ret(value uint32) label {
	if l, ok := a.rets[value]; ok && a.distance(l) <= reach {
		return l
	}
	a.rets[value] = a.emit(unix.BPF_RET|unix.BPF_K, 0, 0, value)
	return a.rets[value]
}

// jump compares the accumulator with k and goes one way or the other.
func (a *asm) jump(op uint16, k uint32, yes, no label) label {
	if yes == no {
		return yes
	}
	y := a.near(yes)
	n := a.near(no)
	return a.emit(unix.BPF_JMP|op|unix.BPF_K, uint8(a.distance(y)), uint8(a.distance(n)), k)
}

// follow lets what is emitted next go on at the given place.
func (a *asm) follow(next label) {
	if a.distance(next) != 0 {
		a.emit(unix.BPF_JMP|unix.BPF_JA, 0, 0, uint32(a.distance(next)))
	}
}

// load loads a word and goes on at next.
func (a *asm) load(offset uint32, next label) label {
	a.follow(next)
	return a.emit(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, 0, 0, offset)
}

// loaded is the place after the load of a word at the given place, if it is
// one: for who comes with the word loaded.
func (a *asm) loaded(offset uint32, at label) label {
	if in := a.code[at-1]; in.Code == unix.BPF_LD|unix.BPF_W|unix.BPF_ABS && in.K == offset {
		return at - 1
	}
	return at
}

// test asks one condition on an argument.
func (a *asm) test(c cond, bits int, yes, no label) label {
	switch c.op { // half of the operators are the other half the other way round
	case specs.OpNotEqual:
		c.op, yes, no = specs.OpEqualTo, no, yes
	case specs.OpLessThan:
		c.op, yes, no = specs.OpGreaterEqual, no, yes
	case specs.OpLessEqual:
		c.op, yes, no = specs.OpGreaterThan, no, yes
	}
	low, high := uint32(offArgs+8*c.arg), uint32(offArgs+8*c.arg+4)
	op := uint16(unix.BPF_JEQ)
	switch c.op {
	case specs.OpGreaterEqual:
		op = unix.BPF_JGE
	case specs.OpGreaterThan:
		op = unix.BPF_JGT
	}
	next := yes
	if mask := uint32(c.mask); mask != 0 {
		next = a.half(op, low, mask, uint32(c.value), yes, no)
	}
	if mask := uint32(c.mask >> 32); bits == 64 && mask != 0 {
		if op == unix.BPF_JEQ {
			return a.half(op, high, mask, uint32(c.value>>32), next, no)
		}
		equal := a.jump(unix.BPF_JEQ, uint32(c.value>>32), next, a.loaded(high, no))
		next = a.load(high, a.jump(unix.BPF_JGT, uint32(c.value>>32), yes, equal))
	}
	return next
}

// half compares one half of an argument.
func (a *asm) half(op uint16, offset, mask, value uint32, yes, no label) label {
	switch {
	case mask == 1<<32-1:
		return a.load(offset, a.jump(op, value, a.loaded(offset, yes), a.loaded(offset, no)))
	case mask&(mask-1) == 0 && value != 0: // one bit
		return a.load(offset, a.jump(unix.BPF_JSET, mask, a.loaded(offset, yes), a.loaded(offset, no)))
	case value == 0:
		return a.load(offset, a.jump(unix.BPF_JSET, mask, a.loaded(offset, no), a.loaded(offset, yes)))
	}
	a.follow(a.jump(op, value, yes, no))
	return a.load(offset, a.emit(unix.BPF_ALU|unix.BPF_AND|unix.BPF_K, 0, 0, mask))
}

// ask asks rules one after the other.
func (a *asm) ask(rules []rule, bits int, otherwise label) label {
	for _, r := range slices.Backward(rules) {
		next := a.ret(r.action)
		for _, c := range slices.Backward(r.conds) {
			next = a.test(c, bits, next, otherwise)
		}
		otherwise = next
	}
	return otherwise
}

// program is the whole, in the kernel's order.
func (a *asm) program() []unix.SockFilter {
	slices.Reverse(a.code)
	return a.code
}
