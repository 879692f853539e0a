package group

import "golang.org/x/sys/unix"

// ownerKey is the attribute with the owner of a group. Every kernel's cgroup
// file systems have these attributes (cgroups(7) tells only of those of v2),
// and only root can write them, so a container cannot.
const ownerKey = "trusted.shocker.owner"

// setOwner marks a group. Where that cannot be done, as in a user namespace,
// it has no owner: then only its undo knows whose it is.
func setOwner(dir, owner string) {
	_ = unix.Lsetxattr(dir, ownerKey, []byte(owner), 0)
}

// Owner is who has made a group that is in these directories, one in each
// hierarchy; "" if it is not known, or there is no such group.
func Owner(dirs []string) string {
	buf := make([]byte, unix.PathMax+64)
	for _, dir := range dirs {
		if n, err := unix.Lgetxattr(dir, ownerKey, buf); err == nil {
			return string(buf[:n])
		}
	}
	return ""
}
