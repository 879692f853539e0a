package devices

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"shocker.sh/lib/cgroup/group"
)

// change is one line for devices.allow or devices.deny.
type change struct{ file, line string }

// changes are the fewest that lead from one filter to another, so that a
// program that is running keeps the devices that it has under both.
func changes(from, to *Filter) []change {
	give, take := "devices.allow", "devices.deny"
	if to.allow {
		give, take = take, give // the exceptions are what is denied
	}
	var list []change
	old := from.except
	if from.allow || from.allow != to.allow {
		// devices.list does not show what is denied when the rest is allowed:
		// from there we can only start anew.
		list = append(list, change{take, "a"})
		old = nil
	}
	for _, d := range sorted(old) {
		if a := old[d] &^ to.except[d]; a != 0 {
			list = append(list, change{take, d.String() + " " + a.String()})
		}
	}
	for _, d := range sorted(to.except) {
		if a := to.except[d] &^ old[d]; a != 0 {
			list = append(list, change{give, d.String() + " " + a.String()})
		}
	}
	return list
}

func sorted(m map[device]access) []device {
	return slices.SortedFunc(maps.Keys(m), func(a, b device) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.major, b.major), cmp.Compare(a.minor, b.minor))
	})
}

// list reads devices.list, which shows what is allowed.
func list(dir string) (*Filter, error) {
	text, err := group.Read(dir, "devices.list")
	if err != nil {
		return nil, err
	}
	f := &Filter{except: make(map[device]access)}
	for line := range strings.Lines(text) {
		w := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == ':' || r == '\n' })
		if len(w) != 4 || len(w[0]) != 1 {
			return nil, fmt.Errorf("%s/devices.list: cannot read line %q", dir, line)
		}
		if w[0] == "a" {
			return &Filter{allow: true, except: map[device]access{}}, nil
		}
		d := device{kind: w[0][0]}
		var errs [3]error
		d.major, errs[0] = unstar(w[1])
		d.minor, errs[1] = unstar(w[2])
		f.except[d], errs[2] = parseAccess(w[3])
		if err := cmp.Or(errs[0], errs[1], errs[2]); err != nil {
			return nil, fmt.Errorf("%s/devices.list: line %q: %w", dir, line, err)
		}
	}
	return f, nil
}

func unstar(s string) (int64, error) {
	if s == "*" {
		return anyNumber, nil
	}
	return strconv.ParseInt(s, 10, 64)
}

// apply1 leaves the rules as they were if one is refused.
func apply1(dir string, f *Filter) error {
	was, err := list(dir)
	if err != nil {
		return err
	}
	if err := change1(dir, was, f); err != nil {
		now, lerr := list(dir)
		if lerr == nil {
			lerr = change1(dir, now, was)
		}
		return errors.Join(fmt.Errorf("%w: the parent group may allow less", err), lerr)
	}
	return nil
}

func change1(dir string, from, to *Filter) error {
	for _, c := range changes(from, to) {
		if err := group.Write(dir, c.file, c.line); err != nil {
			return err
		}
	}
	return nil
}

func same1(dir string, f *Filter) (bool, error) {
	now, err := list(dir)
	if err != nil {
		return false, err
	}
	// What is denied out of everything cannot be read back.
	return now.allow == f.allow && (f.allow || maps.Equal(now.except, f.except)), nil
}
