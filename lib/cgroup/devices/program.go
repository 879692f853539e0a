package devices

import "golang.org/x/sys/unix"

// insn is struct bpf_insn of <linux/bpf.h> on a little-endian machine.
type insn struct {
	code byte
	regs byte // destination, and source << 4
	off  int16
	imm  int32
}

// The instructions used, of class LDX, ALU and JMP32 (kernel 5.1; it compares
// device numbers unsigned). Operands are registers or constants.
const (
	load       = unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W
	setTo      = unix.BPF_ALU | unix.BPF_MOV | unix.BPF_K
	copyFrom   = unix.BPF_ALU | unix.BPF_MOV | unix.BPF_X
	and        = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	shiftRight = unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K
	jumpEqual  = unix.BPF_JMP32 | unix.BPF_JEQ | unix.BPF_K
	jumpUnlike = unix.BPF_JMP32 | unix.BPF_JNE | unix.BPF_K
	exit       = unix.BPF_JMP | unix.BPF_EXIT
)

// The registers used.
const (
	r0     = iota // result, and scratch
	ctx           // struct bpf_cgroup_dev_ctx
	kind          // BPF_DEVCG_DEV_*
	wanted        // access
	major
	minor
)

// program is the filter as a BPF program of type cgroup/dev: it returns 1 to
// allow and 0 to deny.
//
//	kind, wanted, major, minor = *ctx
//	for each exception:   if it is for another device, go on to the next
//	                      if its access does not decide, go on to the next
//	                      return !f.allow
//	return f.allow
//
// An exception from "deny" decides when it grants all that is wanted, one from
// "allow" when it denies any of it, as in v1.
func (f *Filter) program() []insn {
	p := []insn{
		{code: load, regs: kind | ctx<<4, off: 0}, // access_type: access << 16 | kind
		{code: copyFrom, regs: wanted | kind<<4},
		{code: and, regs: kind, imm: 0xffff},
		{code: shiftRight, regs: wanted, imm: 16},
		{code: load, regs: major | ctx<<4, off: 4},
		{code: load, regs: minor | ctx<<4, off: 8},
	}
	for _, d := range sorted(f.except) {
		p = append(p, f.exception(d, f.except[d])...)
	}
	return append(p, result(f.allow)...)
}

func (f *Filter) exception(d device, a access) []insn {
	kinds := map[byte]int32{'b': unix.BPF_DEVCG_DEV_BLOCK, 'c': unix.BPF_DEVCG_DEV_CHAR}
	block := []insn{{code: jumpUnlike, regs: kind, imm: kinds[d.kind]}}
	switch {
	case f.allow:
		block = append(block,
			insn{code: copyFrom, regs: r0 | wanted<<4},
			insn{code: and, regs: r0, imm: int32(a)},
			insn{code: jumpEqual, regs: r0, imm: 0})
	case a != all:
		block = append(block,
			insn{code: copyFrom, regs: r0 | wanted<<4},
			insn{code: and, regs: r0, imm: int32(all &^ a)},
			insn{code: jumpUnlike, regs: r0, imm: 0})
	}
	if d.major != anyNumber {
		block = append(block, insn{code: jumpUnlike, regs: major, imm: int32(uint32(d.major))})
	}
	if d.minor != anyNumber {
		block = append(block, insn{code: jumpUnlike, regs: minor, imm: int32(uint32(d.minor))})
	}
	block = append(block, result(!f.allow)...)
	for i := range block { // every jump leaves the block
		if c := block[i].code; c == jumpEqual || c == jumpUnlike {
			block[i].off = int16(len(block) - i - 1)
		}
	}
	return block
}

func result(allow bool) []insn {
	var v int32
	if allow {
		v = 1
	}
	return []insn{{code: setTo, regs: r0, imm: v}, {code: exit}}
}
