package sys

import (
	"fmt"
	"strconv"
	"strings"
)

// MountPoint is a line of /proc/self/mountinfo (proc_pid_mountinfo(5)).
type MountPoint struct {
	Path   string // where it is mounted
	Type   string // of the file system: tmpfs
	Source string // as it was given to mount(2)
}

// Mounts lists the mounts that this process sees, each behind the one that it
// is mounted on.
func Mounts() ([]MountPoint, error) {
	const file = "/proc/self/mountinfo"
	text, err := ReadKernel(file)
	if err != nil {
		return nil, err
	}
	var all []MountPoint
	for line := range strings.Lines(string(text)) {
		left, right, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		l, r := strings.Split(left, " "), strings.Split(right, " ")
		if len(l) < 6 || len(r) < 2 {
			return nil, fmt.Errorf("%s: cannot read line %q", file, line)
		}
		all = append(all, MountPoint{unescape(l[4]), unescape(r[0]), unescape(r[1])})
	}
	return all, nil
}

// unescape reads what the kernel has written as \040.
func unescape(s string) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, `\`)
		b.WriteString(before)
		if !found {
			return b.String()
		}
		n, err := strconv.ParseUint(after[:min(3, len(after))], 8, 8)
		if err != nil || len(after) < 3 {
			b.WriteByte('\\')
			s = after
			continue
		}
		b.WriteByte(byte(n))
		s = after[3:]
	}
}
