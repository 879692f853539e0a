package hierarchy

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"shocker.sh/lib/sys"
)

// BelowOwn sets the base of each hierarchy as runc does for paths that are not
// absolute: the cgroup of this process, which differs between those of v1. Where
// v2 stands alone it is the parent, since a cgroup that holds processes cannot
// give controllers to others below it.
func BelowOwn(all []Hierarchy) ([]Hierarchy, error) {
	file, text, err := read(os.Getpid())
	if err != nil {
		return nil, err
	}
	based := make([]Hierarchy, len(all))
	for i, h := range all {
		own, err := h.find(file, text)
		if err != nil {
			return nil, err
		}
		if len(all) == 1 && h.Version == 2 {
			own = filepath.Dir(own)
		}
		h.Base = own
		based[i] = h
	}
	return based, nil
}

// Of is the cgroup of a process in a hierarchy, below its mount
// (proc_pid_cgroup(5)):
//
//	4:memory:/user.slice
//	0::/user.slice
func Of(pid int, h Hierarchy) (string, error) {
	file, text, err := read(pid)
	if err != nil {
		return "", err
	}
	return h.find(file, text)
}

func read(pid int) (file, text string, err error) {
	file = filepath.Join("/proc", strconv.Itoa(pid), "cgroup")
	data, err := sys.ReadKernel(file)
	return file, string(data), err
}

// find is Of in the text of such a file.
func (h Hierarchy) find(file, text string) (string, error) {
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 {
			return "", fmt.Errorf("%s: cannot read line %q", file, line)
		}
		first, _, _ := strings.Cut(f[1], ",")
		if h.Version == 2 && f[0] != "0" || h.Version == 1 && (first == "" || !h.Has(first)) {
			continue
		}
		// Without a cgroup namespace a container sees the paths of the host,
		// but its mounts begin at its own group.
		below, err := filepath.Rel(h.Root, f[2])
		if err != nil || below == ".." || strings.HasPrefix(below, "../") {
			return "", fmt.Errorf("%w: %s has %s, and %s begins at %s", ErrOutside, file, f[2], h.Mount, h.Root)
		}
		return filepath.Join("/", below), nil
	}
	return "", fmt.Errorf("%s has no line for %s", file, h.Mount)
}
