package subvol

import (
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/spawn"
)

// Mappings are the id mappings of a record.
type Mappings struct {
	UIDs []specs.LinuxIDMapping `json:"uidMappings"`
	GIDs []specs.LinuxIDMapping `json:"gidMappings"`
}

// Attach mounts the tree root at target with its ids mapped (mount_setattr(2),
// kernel 5.12; btrfs 5.15). Any user namespace with these mappings serves: the
// one made for it is gone as soon as the mount has them.
func Attach(root, target string, maps Mappings) error {
	userns, err := spawn.UserNamespace(maps.UIDs, maps.GIDs)
	if err != nil {
		return err
	}
	defer userns.Close()
	tree, err := unix.OpenTree(unix.AT_FDCWD, root, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return &os.PathError{Op: "open_tree", Path: root, Err: err}
	}
	defer unix.Close(tree)
	attr := unix.MountAttr{
		// Device nodes of an image are the host's devices.
		Attr_set:    unix.MOUNT_ATTR_IDMAP | unix.MOUNT_ATTR_NODEV,
		Propagation: unix.MS_PRIVATE, // a clone of a shared mount is shared
		Userns_fd:   uint64(userns.Fd()),
	}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return &os.PathError{Op: "map the ids of", Path: root, Err: err}
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return &os.PathError{Op: "attach the root at", Path: target, Err: err}
	}
	return nil
}
