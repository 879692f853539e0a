package stage

import (
	"golang.org/x/sys/unix"
)

// CgroupV2 says whether the cgroup root is the unified hierarchy and nothing
// else (cgroups(7)).
func (h Host) CgroupV2() bool {
	var st unix.Statfs_t
	return unix.Statfs(h.CgroupRoot, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}
