package devices

import (
	"errors"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/sys"
)

func apply2(dir string, f *Filter) (retErr error) {
	cgroup, err := sys.OpenDir(dir)
	if err != nil {
		return err
	}
	defer cgroup.Close()
	old, _, err := attached(cgroup)
	if err != nil {
		return err
	}
	if old >= 0 {
		defer func() { retErr = errors.Join(retErr, unix.Close(old)) }()
	}
	program, err := loadProgram(f.program())
	if err != nil {
		return err
	}
	// Once it is attached the cgroup keeps it.
	defer func() { retErr = errors.Join(retErr, unix.Close(program)) }()
	return attach(cgroup, program, old)
}

// same2 loads the program that there should be, to compare the tags.
func same2(dir string, f *Filter) (_ bool, retErr error) {
	cgroup, err := sys.OpenDir(dir)
	if err != nil {
		return false, err
	}
	defer cgroup.Close()
	has, hasTag, err := attached(cgroup)
	if err != nil || has < 0 {
		return false, err
	}
	defer func() { retErr = errors.Join(retErr, unix.Close(has)) }()
	program, err := loadProgram(f.program())
	if err != nil {
		return false, err
	}
	defer func() { retErr = errors.Join(retErr, unix.Close(program)) }()
	_, tag, err := identify(program)
	return tag == hasTag, err
}
