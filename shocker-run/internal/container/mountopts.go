package container

import (
	"strings"

	"golang.org/x/sys/unix"
)

// mountOptions are the options of one mount, sorted by the call they go into.
type mountOptions struct {
	set, clear       uint64 // MOUNT_ATTR_ of the mount itself
	recSet, recClear uint64 // the same for the mounts below it: rro, rnoexec ...
	bind, recursive  bool
	propagation      uint64 // MS_SHARED ..., 0: as the root's
	propagationRec   bool
	copyUp           bool     // tmpcopyup: the tmpfs begins with what it covers
	remount          bool     // change what is mounted there
	idmap            bool     // idmap, ridmap
	idmapRec         bool     // ridmap: the mounts below as well
	data             []string // key, key=value: parameters of the file system
}

// attr is what one option does to the attributes of a mount.
type attr struct{ set, clear uint64 }

// attrs are the options of mount(8) that are attributes of a mount and no
// parameter of its file system (mount_setattr(2)). With an "r" in front they
// hold for all mounts below as well (OCI runtime-spec, config.md, "Linux mount
// options").
var attrs = map[string]attr{
	"ro":            {set: unix.MOUNT_ATTR_RDONLY},
	"rw":            {clear: unix.MOUNT_ATTR_RDONLY},
	"nosuid":        {set: unix.MOUNT_ATTR_NOSUID},
	"suid":          {clear: unix.MOUNT_ATTR_NOSUID},
	"nodev":         {set: unix.MOUNT_ATTR_NODEV},
	"dev":           {clear: unix.MOUNT_ATTR_NODEV},
	"noexec":        {set: unix.MOUNT_ATTR_NOEXEC},
	"exec":          {clear: unix.MOUNT_ATTR_NOEXEC},
	"nodiratime":    {set: unix.MOUNT_ATTR_NODIRATIME},
	"diratime":      {clear: unix.MOUNT_ATTR_NODIRATIME},
	"relatime":      {set: unix.MOUNT_ATTR_RELATIME, clear: unix.MOUNT_ATTR__ATIME},
	"norelatime":    {clear: unix.MOUNT_ATTR__ATIME, set: unix.MOUNT_ATTR_STRICTATIME},
	"noatime":       {set: unix.MOUNT_ATTR_NOATIME, clear: unix.MOUNT_ATTR__ATIME},
	"atime":         {set: unix.MOUNT_ATTR_RELATIME, clear: unix.MOUNT_ATTR__ATIME},
	"strictatime":   {set: unix.MOUNT_ATTR_STRICTATIME, clear: unix.MOUNT_ATTR__ATIME},
	"nostrictatime": {set: unix.MOUNT_ATTR_RELATIME, clear: unix.MOUNT_ATTR__ATIME},
	"nosymfollow":   {set: unix.MOUNT_ATTR_NOSYMFOLLOW},
	"symfollow":     {clear: unix.MOUNT_ATTR_NOSYMFOLLOW},
}

var propagations = map[string]uint64{
	"private":    unix.MS_PRIVATE,
	"shared":     unix.MS_SHARED,
	"slave":      unix.MS_SLAVE,
	"unbindable": unix.MS_UNBINDABLE,
}

// superFlags are given to a new file system as they are and mean nothing on a
// bind mount.
var superFlags = map[string]bool{
	"sync": true, "dirsync": true, "lazytime": true, "mand": true,
	"iversion": true, "silent": true,
}

// ignored is the default of every new mount.
var ignored = map[string]bool{
	"defaults": true, "async": true, "nolazytime": true, "nomand": true,
	"noiversion": true, "loud": true,
}

// parseOptions sorts the options of a mount. Which parameters a file system
// takes is left to the kernel.
func parseOptions(options []string) *mountOptions {
	o := &mountOptions{}
	for _, opt := range options {
		recursive := strings.TrimPrefix(opt, "r")
		switch {
		case opt == "bind":
			o.bind = true
		case opt == "rbind":
			o.bind, o.recursive = true, true
		case opt == "tmpcopyup":
			o.copyUp = true
		case opt == "idmap" || opt == "ridmap":
			o.idmap, o.idmapRec = true, opt == "ridmap"
		case opt == "remount":
			o.remount = true
		case opt == "" || ignored[opt]: // podman has an empty one for systemd's tmpfs
		case propagations[opt] != 0:
			o.propagation, o.propagationRec = propagations[opt], false
		case opt != recursive && propagations[recursive] != 0:
			o.propagation, o.propagationRec = propagations[recursive], true
		case superFlags[opt]:
			o.data = append(o.data, opt)
		default:
			if a, ok := attrs[opt]; ok {
				apply(&o.set, &o.clear, a)
			} else if a, ok := attrs[recursive]; ok && opt != recursive {
				apply(&o.recSet, &o.recClear, a)
			} else {
				o.data = append(o.data, opt)
			}
		}
	}
	return o
}

// apply lets a later option win over an earlier one.
func apply(set, clear *uint64, a attr) {
	*set = *set&^a.clear | a.set
	*clear = *clear&^a.set | a.clear
}
