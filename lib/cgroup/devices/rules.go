// Package devices says which device nodes the processes of a cgroup may use,
// from linux.resources.devices of an OCI runtime config. cgroup v1 is told by
// lines in devices.allow and devices.deny, cgroup v2 by a BPF program.
//
// Both get the same meaning, that of v1: a default, and exceptions from it.
package devices

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// access is what may be done with a device, in the bits of the kernel
// (BPF_DEVCG_ACC_*).
type access uint32

const (
	mknod access = 1 << iota
	read
	write
	all = mknod | read | write
)

func parseAccess(s string) (access, error) {
	var a access
	for _, c := range s {
		switch c {
		case 'm':
			a |= mknod
		case 'r':
			a |= read
		case 'w':
			a |= write
		default:
			return 0, fmt.Errorf("%w: access %q is not of r, w and m", ErrInvalid, s)
		}
	}
	return a, nil
}

func (a access) String() string {
	var b strings.Builder
	for _, f := range []struct {
		bit  access
		name byte
	}{{read, 'r'}, {write, 'w'}, {mknod, 'm'}} {
		if a&f.bit != 0 {
			b.WriteByte(f.name)
		}
	}
	return b.String()
}

// anyNumber is "*".
const anyNumber = -1

// device is what an exception is for: one device, or all of a kind.
type device struct {
	kind         byte // 'b' or 'c'
	major, minor int64
}

func (d device) String() string {
	return fmt.Sprintf("%c %s:%s", d.kind, star(d.major), star(d.minor))
}

func star(n int64) string {
	if n == anyNumber {
		return "*"
	}
	return strconv.FormatInt(n, 10)
}

// Default are the rules that an OCI runtime puts behind those of a config: a
// container may make any node, and use those of its /dev (runtime-spec,
// config-linux.md, "Default Devices", and pseudo terminals).
func Default() []specs.LinuxDeviceCgroup {
	rule := func(kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
		r := specs.LinuxDeviceCgroup{Allow: true, Type: kind, Access: access}
		if major != anyNumber {
			r.Major = &major
		}
		if minor != anyNumber {
			r.Minor = &minor
		}
		return r
	}
	rules := []specs.LinuxDeviceCgroup{rule("c", anyNumber, anyNumber, "m"), rule("b", anyNumber, anyNumber, "m")}
	for _, minor := range []int64{3, 5, 7, 8, 9} { // null, zero, full, random, urandom
		rules = append(rules, rule("c", 1, minor, "rwm"))
	}
	return append(rules, rule("c", 5, 0, "rwm"), rule("c", 5, 2, "rwm"), rule("c", 136, anyNumber, "rwm")) // tty, ptmx, pts
}

// Filter is a set of rules: allow, or not, but for the exceptions.
type Filter struct {
	allow  bool
	except map[device]access
}

// Exception is one from what a filter says of all devices; -1 stands for "*".
type Exception struct {
	Kind         byte // 'b' or 'c'
	Major, Minor int64
	Access       string // of r, w and m
}

// Rules say whether devices are allowed, and the exceptions from that.
func (f *Filter) Rules() (allow bool, except []Exception) {
	for _, d := range sorted(f.except) {
		except = append(except, Exception{d.kind, d.major, d.minor, f.except[d].String()})
	}
	return f.allow, except
}

// New makes a filter of rules, each of which changes what those before it
// said. Without any, everything is denied.
func New(rules []specs.LinuxDeviceCgroup) (*Filter, error) {
	f := &Filter{except: make(map[device]access)}
	for i, r := range rules {
		if err := f.apply(r); err != nil {
			return nil, fmt.Errorf("linux.resources.devices[%d]: %w", i, err)
		}
	}
	return f, nil
}

func (f *Filter) apply(r specs.LinuxDeviceCgroup) error {
	a := all
	if r.Access != "" {
		var err error
		if a, err = parseAccess(r.Access); err != nil {
			return err
		}
	}
	d := device{major: anyNumber, minor: anyNumber}
	for _, n := range []struct {
		from *int64
		to   *int64
	}{{r.Major, &d.major}, {r.Minor, &d.minor}} {
		if n.from == nil {
			continue
		}
		if *n.from < anyNumber || *n.from > math.MaxUint32 {
			return fmt.Errorf("%w: device number %d", ErrInvalid, *n.from)
		}
		*n.to = *n.from
	}
	switch r.Type {
	case "", "a": // everything, whatever else it says: what was before is void
		f.allow = r.Allow
		clear(f.except)
		return nil
	case "b", "c":
		d.kind = r.Type[0]
	default:
		return fmt.Errorf("%w: type %q is not a, b or c", ErrInvalid, r.Type)
	}
	if r.Allow != f.allow {
		f.except[d] |= a
		return nil
	}
	return f.remove(d, a)
}

// remove takes access out of an exception.
func (f *Filter) remove(d device, a access) error {
	for _, wider := range []device{
		{d.kind, anyNumber, d.minor},
		{d.kind, d.major, anyNumber},
		{d.kind, anyNumber, anyNumber},
	} {
		if wider != d && f.except[wider]&a != 0 {
			return fmt.Errorf("%w: %s %s out of %s %s", ErrHole, d, a, wider, f.except[wider])
		}
	}
	if f.except[d] &^= a; f.except[d] == 0 {
		delete(f.except, d)
	}
	return nil
}
