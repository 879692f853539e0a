package container

import (
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// idMaps are the id mappings of the container's user namespace; without any
// the ids are the host's.
type idMaps struct {
	uids, gids []specs.LinuxIDMapping
}

// host returns the host's ids of a user in the container.
func (m idMaps) host(uid, gid uint32) (int, int, error) {
	hostUID, ok1 := mapID(m.uids, uid)
	hostGID, ok2 := mapID(m.gids, gid)
	if !ok1 || !ok2 {
		return 0, 0, fmt.Errorf("%w: %d:%d has no id on the host in the mappings", ErrInvalid, uid, gid)
	}
	return int(hostUID), int(hostGID), nil
}

func mapID(maps []specs.LinuxIDMapping, id uint32) (uint32, bool) {
	for _, m := range maps {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return m.HostID + (id - m.ContainerID), true
		}
	}
	return id, len(maps) == 0
}

// holds says whether a uid of the host is one of the container's.
func (m idMaps) holds(hostUID uint32) bool { return holds(m.uids, hostUID) }

func holds(maps []specs.LinuxIDMapping, hostID uint32) bool {
	for _, m := range maps {
		if hostID >= m.HostID && hostID-m.HostID < m.Size {
			return true
		}
	}
	return len(maps) == 0
}

// holdProgram says whether somebody in the container can be the owner of our
// program, or of its group, and so could overwrite it (CVE-2019-5736): without a
// user namespace, and in one whose mappings have that id.
func (m idMaps) holdProgram() (bool, error) {
	const program = "/proc/self/exe"
	var st unix.Stat_t
	if err := unix.Stat(program, &st); err != nil {
		return false, &os.PathError{Op: "stat", Path: program, Err: err}
	}
	return holds(m.uids, st.Uid) || holds(m.gids, st.Gid), nil
}
