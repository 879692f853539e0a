package devices

// Apply puts a filter on the cgroup at dir, in place of the one it had.
func Apply(dir string, version int, f *Filter) error {
	if version == 1 {
		return apply1(dir, f)
	}
	return apply2(dir, f)
}

// Same says whether the cgroup at dir has the filter f.
func Same(dir string, version int, f *Filter) (bool, error) {
	if version == 1 {
		return same1(dir, f)
	}
	return same2(dir, f)
}
