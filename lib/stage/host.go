package stage

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Host says where things are on this machine. It is passed down as a value,
// so that a test brings its own.
type Host struct {
	Store        string // root of the btrfs store
	Run          string // root of the run dirs: tmpfs, private mount
	CgroupRoot   string // where the cgroup file systems are mounted
	CgroupParent string // absolute cgroup below which containers' groups are made
	Subnet       string // addresses of the containers, IPv4 CIDR
	Bridge       string // bridge of the containers
	Path         string // directories of foreign stages, ":" between
}

// FromEnv reads the host from SHOCKER_ROOT, SHOCKER_RUN, SHOCKER_CGROUP,
// SHOCKER_SUBNET, SHOCKER_BRIDGE and SHOCKER_PATH, each with its default.
func FromEnv() Host {
	return Host{
		Store:        absolute(cmp.Or(os.Getenv("SHOCKER_ROOT"), "/var/shocker")),
		Run:          absolute(cmp.Or(os.Getenv("SHOCKER_RUN"), "/run/shocker")),
		CgroupRoot:   "/sys/fs/cgroup",
		CgroupParent: filepath.Clean("/" + os.Getenv("SHOCKER_CGROUP")),
		Subnet:       cmp.Or(os.Getenv("SHOCKER_SUBNET"), "10.0.0.0/24"),
		Bridge:       cmp.Or(os.Getenv("SHOCKER_BRIDGE"), "bridge0"),
		Path:         cmp.Or(os.Getenv("SHOCKER_PATH"), "/etc/shocker/parts"),
	}
}

// absolute makes a path mean the same wherever it is read: records and undo
// entries carry it to other directories.
func absolute(path string) string {
	if a, err := filepath.Abs(path); err == nil {
		return a
	}
	return path // the working directory is gone; whoever uses it will say so
}

// RunDir is the run dir of a container.
func (h Host) RunDir(id string) string { return filepath.Join(h.Run, id) }

// Owner tells the things of this store and these run dirs from those of others,
// by what no other has: the store's file system and inode, and the path of the
// run dirs, which may be mounted anew. It is "" where there is no store.
func (h Host) Owner() string {
	var fs unix.Statfs_t
	var st unix.Stat_t
	if unix.Statfs(h.Store, &fs) != nil || unix.Stat(h.Store, &st) != nil {
		return ""
	}
	return fmt.Sprintf("%08x%08x:%d:%s", uint32(fs.Fsid.Val[0]), uint32(fs.Fsid.Val[1]), st.Ino, h.Run)
}

// Leases is the directory of the addresses that are taken, and IDRanges that of
// the ranges of user ids: files that hold the id of the container they belong
// to.
func (h Host) Leases() string   { return filepath.Join(h.Run, ".net", "leases") }
func (h Host) IDRanges() string { return filepath.Join(h.Run, ".ids") }

// Dirs are the directories in which foreign stages are looked for.
func (h Host) Dirs() []string {
	return strings.FieldsFunc(h.Path, func(r rune) bool { return r == ':' })
}
