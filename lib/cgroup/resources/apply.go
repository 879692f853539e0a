package resources

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/cgroup/devices"
	"shocker.sh/lib/cgroup/group"
)

// Update applies the plan to a group in use. What the plan does not name stays
// as it is, and if the kernel refuses a part of it, or one of the steps that
// are then taken fails, so does the rest.
func (p *Plan) Update(then ...func() error) error {
	if err := p.group.Enable(p.Controllers()); err != nil {
		return err
	}
	before, err := p.before()
	if err != nil {
		return err
	}
	err = p.Apply()
	for _, step := range then {
		if err == nil {
			err = step()
		}
	}
	if err != nil {
		return errors.Join(err, restore(before))
	}
	return nil
}

// former is what the files of a step held.
type former struct {
	step
	whole []string // content of each value's file
}

// before reads what the plan is going to change. Of devices it needs to know
// nothing: they come last, and fail as a whole.
func (p *Plan) before() ([]former, error) {
	var all []former
	for _, s := range p.steps {
		f := former{step: step{controller: s.controller, dir: s.dir}}
		for _, v := range s.values {
			was, whole, err := v.was(s.dir)
			if errors.Is(err, fs.ErrNotExist) {
				continue // and so cannot be written either
			}
			if err != nil {
				return nil, err
			}
			f.values, f.whole = append(f.values, was), append(f.whole, whole)
		}
		all = append(all, f)
	}
	return all, nil
}

// was is the value that brings back what the file holds, and its content.
func (v value) was(dir string) (was value, whole string, err error) {
	whole, err = group.Read(dir, v.file)
	if errors.Is(err, fs.ErrNotExist) && v.instead != nil {
		return v.instead.was(dir)
	}
	text := whole
	if v.before != nil {
		text = v.before(whole, v.text)
	}
	return value{file: v.file, text: text}, whole, err
}

// restore writes back what has changed, the last first.
func restore(before []former) error {
	var errs []error
	for _, f := range slices.Backward(before) {
		s := step{controller: f.controller, dir: f.dir}
		for i, v := range slices.Backward(f.values) {
			now, err := group.Read(f.dir, v.file)
			if err != nil {
				errs = append(errs, err)
			} else if now != f.whole[i] {
				s.values = append(s.values, v)
			}
		}
		if err := s.apply(); err != nil {
			errs = append(errs, fmt.Errorf("bring back what was: %w", err))
		}
	}
	return errors.Join(errs...)
}

// Apply writes the plan to the kernel. The group must be there.
func (p *Plan) Apply() error {
	if err := p.checkMemory(); err != nil {
		return err
	}
	for _, s := range p.steps {
		if err := s.apply(); err != nil {
			return err
		}
	}
	if p.devices == nil {
		return nil
	}
	h, _ := p.group.Find("devices")
	return devices.Apply(p.group.In(h), h.Version, p.devices)
}

// checkMemory refuses, if the config asks for it, a limit below what is in use:
// v2 would make room by killing. v1 refuses by itself.
func (p *Plan) checkMemory() error {
	h, ok := p.group.Find("memory")
	if p.atMost <= 0 || !ok || h.Version != 2 {
		return nil
	}
	text, err := group.Read(p.group.In(h), "memory.current")
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the controller has not been on so far
	}
	if err != nil {
		return err
	}
	if used, err := bytesOf(text); err != nil || used >= p.atMost {
		return fmt.Errorf("%w: linux.resources.memory.limit: %d, but %s bytes are in use", ErrInvalid, p.atMost, text)
	}
	return nil
}

// apply writes the values of one controller. They bound each other (a quota
// and its period, memory and memory with swap), so which order the kernel takes
// depends on what is set now: what it refuses with EINVAL is tried again after
// the rest.
func (s step) apply() error {
	var again []value
	for _, v := range s.values {
		err := v.write(s.dir)
		if errors.Is(err, unix.EINVAL) && len(s.values) > 1 {
			again = append(again, v)
		} else if err != nil {
			return s.explain(v, err)
		}
	}
	for _, v := range again {
		if err := v.write(s.dir); err != nil {
			return s.explain(v, err)
		}
	}
	return nil
}

func (v value) write(dir string) error {
	text := v.text
	if v.with != nil {
		have, err := group.Read(dir, v.file)
		if err != nil {
			return err
		}
		text = v.with(have, text)
	}
	if text == "" {
		text = "\n" // takes a list away; write(2) of nothing does nothing
	}
	err := group.Write(dir, v.file, text)
	if errors.Is(err, fs.ErrNotExist) {
		switch {
		case v.instead != nil:
			return v.instead.write(dir)
		case v.optional:
			return nil
		}
	}
	if err != nil || !v.verify {
		return err
	}
	have, err := group.Read(dir, v.file)
	if err == nil && have != v.text {
		err = fmt.Errorf("%w: %s took %s for %s", ErrInvalid, filepath.Join(dir, v.file), have, v.text)
	}
	return err
}

// explain adds what an errno means here.
func (s step) explain(v value, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if missing, _ := group.Read(s.dir, "cgroup.controllers"); missing != "" || s.controller == "" {
			return fmt.Errorf("%w: this kernel, or this place in the cgroup tree, has no such file", err)
		}
		return fmt.Errorf("%w: this kernel has no such file", err)
	case errors.Is(err, unix.EBUSY) && s.controller == "memory":
		usage, _ := group.Read(s.dir, "memory.usage_in_bytes")
		return fmt.Errorf("%w: %s bytes are in use and cannot be reclaimed", err, usage)
	case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ERANGE):
		return fmt.Errorf("%w: out of the kernel's range, or beyond what the parent group allows", err)
	case errors.Is(err, unix.EOPNOTSUPP) && s.controller != "":
		kind, _ := group.Read(s.dir, "cgroup.type")
		return fmt.Errorf("%w: the group is %q", err, kind)
	}
	return err
}

// Check compares the group with the plan and names every difference.
func (p *Plan) Check() error {
	var differences []string
	for _, s := range p.steps {
		for _, v := range s.values {
			d, err := v.difference(s.dir)
			if err != nil {
				return err
			}
			if d != "" {
				differences = append(differences, d)
			}
		}
	}
	if p.devices != nil {
		h, _ := p.group.Find("devices")
		same, err := devices.Same(p.group.In(h), h.Version, p.devices)
		if err != nil {
			return err
		}
		if !same {
			differences = append(differences, p.group.In(h)+" has other device rules")
		}
	}
	if len(differences) > 0 {
		return fmt.Errorf("%w: %s", ErrDiffers, strings.Join(differences, "; "))
	}
	return nil
}

// difference says in words what the file holds instead of the value.
func (v value) difference(dir string) (string, error) {
	have, err := group.Read(dir, v.file)
	if errors.Is(err, fs.ErrNotExist) {
		switch {
		case v.instead != nil:
			return v.instead.difference(dir)
		case v.optional:
			return "", nil
		}
		return filepath.Join(dir, v.file) + " is missing", nil
	}
	if err != nil || v.holds(have) {
		return "", err
	}
	return fmt.Sprintf("%s is %q, not %q", filepath.Join(dir, v.file), have, v.text), nil
}

func (v value) holds(have string) bool {
	if v.same == nil {
		return have == v.text
	}
	return v.same(have, v.text)
}
