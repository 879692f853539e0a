package container

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
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
func (m idMaps) holds(hostUID uint32) bool {
	for _, u := range m.uids {
		if hostUID >= u.HostID && hostUID-u.HostID < u.Size {
			return true
		}
	}
	return len(m.uids) == 0
}
