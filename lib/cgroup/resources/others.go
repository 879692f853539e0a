package resources

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"shocker.sh/lib/cgroup/group"
)

func hugetlb1(r *specs.LinuxResources) ([]value, error) { return hugetlb(r, "limit_in_bytes") }
func hugetlb2(r *specs.LinuxResources) ([]value, error) { return hugetlb(r, "max") }

// hugetlb limits use and, since kernel 5.7, reservation: a program that
// reserves more than it may use would die by SIGBUS later.
func hugetlb(r *specs.LinuxResources, suffix string) ([]value, error) {
	var values []value
	for _, l := range r.HugepageLimits {
		if l.Pagesize == "" || strings.ContainsAny(l.Pagesize, "./") {
			return nil, fmt.Errorf("%w: linux.resources.hugepageLimits.pageSize: %q is no size such as 2MB", ErrInvalid, l.Pagesize)
		}
		values = append(values,
			value{file: "hugetlb." + l.Pagesize + "." + suffix, text: utoa(l.Limit), same: sameHuge},
			value{file: "hugetlb." + l.Pagesize + ".rsvd." + suffix, text: utoa(l.Limit), same: sameHuge, optional: true},
		)
	}
	return values, nil
}

// sameHuge: the kernel rounds down to whole huge pages, whose size is only in
// the file's name; what it keeps is never more than what was asked for.
func sameHuge(have, text string) bool {
	h, err1 := bytesOf(have)
	t, err2 := bytesOf(text)
	return err1 == nil && err2 == nil && h <= t
}

// rdma is the same on v1 and v2.
func rdma(r *specs.LinuxResources) ([]value, error) {
	var values []value
	for _, name := range slices.Sorted(maps.Keys(r.Rdma)) {
		text := name
		if n := r.Rdma[name].HcaHandles; n != nil {
			text += fmt.Sprintf(" hca_handle=%d", *n)
		}
		if n := r.Rdma[name].HcaObjects; n != nil {
			text += fmt.Sprintf(" hca_object=%d", *n)
		}
		values = append(values, value{file: "rdma.max", text: text, same: sameLine, before: lineOr("hca_handle=max hca_object=max")})
	}
	return values, nil
}

func classID(r *specs.LinuxResources) ([]value, error) {
	if r.Network == nil || r.Network.ClassID == nil || *r.Network.ClassID == 0 {
		return nil, nil
	}
	return []value{{file: "net_cls.classid", text: utoa(uint64(*r.Network.ClassID))}}, nil
}

func priorities(r *specs.LinuxResources) ([]value, error) {
	if r.Network == nil {
		return nil, nil
	}
	var values []value
	for _, p := range r.Network.Priorities {
		values = append(values, value{file: "net_prio.ifpriomap", text: fmt.Sprintf("%s %d", p.Name, p.Priority), same: sameLine, before: lineOr("0")})
	}
	return values, nil
}

// addUnified plans linux.resources.unified: files of cgroup v2 by name. They
// come last, so they win over what the other keys say of the same file.
func (p *Plan) addUnified(files map[string]string) error {
	for _, file := range slices.Sorted(maps.Keys(files)) {
		controller, _, ok := strings.Cut(file, ".")
		if !ok || strings.Contains(file, "/") {
			return fmt.Errorf("%w: linux.resources.unified: %q is no file name such as memory.high", ErrInvalid, file)
		}
		if controller == "cgroup" {
			controller = "freezer" // part of every group of v2, as that is
		}
		h, ok := p.group.Find(controller)
		if !ok || h.Version != 2 {
			return fmt.Errorf("invalid configuration: linux.resources.unified: %s: %w in cgroup v2 on this machine", file, group.ErrNoController)
		}
		var values []value
		for line := range strings.Lines(files[file]) { // the kernel takes one at a time
			values = append(values, value{file: file, text: strings.TrimRight(line, "\n"), same: sameUnified, before: unifiedBefore})
		}
		p.put(controller, p.group.In(h), values)
	}
	return nil
}

// sameUnified knows nothing of the file: a value, a line of several, a list.
func sameUnified(have, text string) bool {
	return have == text || sameBytes(have, text) || sameDefault(have, text) ||
		sameCPUs(have, text) || strings.Contains(text, " ") && sameLine(have, text)
}

// unifiedBefore brings back the line that begins as text does, else all that
// there is. A file of several lines takes one at a time, so it gets only the
// first, which is the default of those that have one.
func unifiedBefore(have, text string) string {
	word, settings, _ := strings.Cut(text, " ")
	switch {
	case settings == "":
	case line(have, word) != "":
		return line(have, word)
	case strings.Contains(settings, "="): // a device's, as in io.max
		var none []string
		for s := range strings.FieldsSeq(settings) {
			key, _, _ := strings.Cut(s, "=")
			none = append(none, key+"=max")
		}
		return word + " " + strings.Join(none, " ")
	}
	return firstLine(have, text)
}
