package seccomp

import (
	"cmp"
	"fmt"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// rule is what a profile says of a system call under conditions that all have
// to hold, in the order of their arguments; without any, always.
type rule struct {
	conds  []cond
	action uint32 // as the program returns it
}

// cond compares an argument, after a mask, with a value.
type cond struct {
	arg         uint
	op          specs.LinuxSeccompOperator
	mask, value uint64
}

// action is what the program returns for an action of a profile
// (seccomp(2), "Return values").
func action(a specs.LinuxSeccompAction, errnoRet *uint) (uint32, error) {
	data := uint32(unix.EPERM)
	if errnoRet != nil {
		if *errnoRet > unix.SECCOMP_RET_DATA {
			return 0, fmt.Errorf("%w: errnoRet %d is no errno", ErrInvalid, *errnoRet)
		}
		data = uint32(*errnoRet)
	}
	switch a {
	case specs.ActErrno:
		return unix.SECCOMP_RET_ERRNO | data, nil
	case specs.ActTrace:
		return unix.SECCOMP_RET_TRACE | data, nil
	}
	// The spec has a runtime fail where the action has no errno.
	if errnoRet != nil {
		return 0, fmt.Errorf("%w: action %q takes no errnoRet", ErrInvalid, a)
	}
	switch a {
	case specs.ActKill, specs.ActKillThread:
		return unix.SECCOMP_RET_KILL_THREAD, nil
	case specs.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS, nil
	case specs.ActTrap:
		return unix.SECCOMP_RET_TRAP, nil
	case specs.ActAllow:
		return unix.SECCOMP_RET_ALLOW, nil
	case specs.ActLog:
		return unix.SECCOMP_RET_LOG, nil
	case specs.ActNotify:
		return unix.SECCOMP_RET_USER_NOTIF, nil
	}
	return 0, fmt.Errorf("%w: unknown action %q", ErrInvalid, a)
}

// allows says whether an action lets system calls that nobody knew pass: then
// the kernel answers those that it does not know. A tracer and an agent answer
// for themselves.
func allows(action uint32) bool {
	switch action & unix.SECCOMP_RET_ACTION_FULL {
	case unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_LOG, unix.SECCOMP_RET_TRACE, unix.SECCOMP_RET_USER_NOTIF:
		return true
	}
	return false
}

// rulesOf are the rules of one entry of a profile.
func rulesOf(call *specs.LinuxSyscall) ([]rule, error) {
	act, err := action(call.Action, call.ErrnoRet)
	if err != nil {
		return nil, err
	}
	var conds []cond
	var seen [6]bool
	twice := false
	for _, a := range call.Args {
		if a.Index >= uint(len(seen)) {
			return nil, fmt.Errorf("%w: argument %d: a system call has arguments 0 to 5", ErrInvalid, a.Index)
		}
		c := cond{arg: a.Index, op: a.Op, mask: ^uint64(0), value: a.Value}
		switch a.Op {
		case specs.OpMaskedEqual:
			c.mask, c.value = a.Value, a.Value&a.ValueTwo
		case specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpGreaterThan, specs.OpGreaterEqual:
		default:
			return nil, fmt.Errorf("%w: unknown operator %q", ErrInvalid, a.Op)
		}
		twice = twice || seen[a.Index]
		seen[a.Index] = true
		conds = append(conds, c)
	}
	if !twice {
		slices.SortFunc(conds, func(a, b cond) int { return cmp.Compare(a.arg, b.arg) })
		return []rule{{conds, act}}, nil
	}
	var rules []rule
	for _, c := range conds {
		rules = append(rules, rule{[]cond{c}, act})
	}
	return rules, nil
}

// seen is the condition as it sees so many bits. With a mask of 0 it holds
// whatever the argument is.
func (c cond) seen(bits int) cond {
	if bits == 32 {
		c.mask, c.value = uint64(uint32(c.mask)), uint64(uint32(c.value))
	}
	return c
}

// narrow makes conditions see so many bits, and leaves out those that always
// hold.
func narrow(conds []cond, bits int) []cond {
	narrowed := make([]cond, 0, len(conds))
	for _, c := range conds {
		if c = c.seen(bits); c.mask != 0 {
			narrowed = append(narrowed, c)
		}
	}
	return narrowed
}

// before orders the rules of one system call as libseccomp's tree asks them:
// later arguments first, equality before "less" before "greater", and of those
// the narrower one. Rules that begin alike: the shorter one, which holds
// whenever the longer does.
func before(a, b rule) int {
	for i := range min(len(a.conds), len(b.conds)) {
		x, y := a.conds[i], b.conds[i]
		c := cmp.Or(cmp.Compare(y.arg, x.arg), cmp.Compare(rank(y.op), rank(x.op)))
		if c == 0 && rank(x.op) == 2 {
			c = cmp.Compare(x.value, y.value)
		} else if c == 0 {
			c = cmp.Compare(y.value, x.value)
		}
		if c != 0 {
			return c
		}
	}
	return cmp.Compare(len(a.conds), len(b.conds))
}

func rank(op specs.LinuxSeccompOperator) int {
	switch op {
	case specs.OpLessThan, specs.OpLessEqual:
		return 2
	case specs.OpGreaterThan, specs.OpGreaterEqual:
		return 1
	}
	return 3
}

// inOrder sorts the rules of one system call, which all have conditions, into
// the order in which they are asked. Two that say different things under the
// same conditions contradict each other.
func inOrder(rules []rule) ([]rule, error) {
	slices.SortStableFunc(rules, before)
	asked := rules[:0]
	for _, r := range rules {
		same := slices.IndexFunc(asked, func(a rule) bool { return slices.Equal(a.conds, r.conds) })
		switch {
		case same < 0:
			asked = append(asked, r)
		case asked[same].action != r.action:
			return nil, fmt.Errorf("%w: two actions for the same arguments", ErrInvalid)
		}
	}
	return asked, nil
}
