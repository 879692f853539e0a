package spawn

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/sys"
)

// kinds are the namespaces' names in /proc/PID/ns.
var kinds = map[uint64]string{
	unix.CLONE_NEWUSER: "user", unix.CLONE_NEWNET: "net", unix.CLONE_NEWNS: "mnt",
	unix.CLONE_NEWIPC: "ipc", unix.CLONE_NEWUTS: "uts", unix.CLONE_NEWCGROUP: "cgroup",
}

// Namespaces makes namespaces of the given kinds, each one CLONE_ flag, and
// returns them open, in that order. With CLONE_NEWUSER the others belong to
// the user namespace, which gets the mappings. The process they are made by
// is gone when they are returned.
func Namespaces(uids, gids []specs.LinuxIDMapping, flags ...uint64) (_ []*os.File, retErr error) {
	t, err := NewTable()
	if err != nil {
		return nil, err
	}
	defer t.Close()
	t.Notify("tell that the namespaces are there")
	t.Wait("hold the namespaces")
	var all uint64
	for _, f := range flags {
		all |= f
	}
	p, err := t.Start(Options{Flags: all})
	if err != nil {
		return nil, fmt.Errorf("make namespaces: %w", err)
	}
	defer p.Close()
	defer func() { retErr = errors.Join(retErr, p.Kill()) }()
	if err := p.Notified(context.Background()); err != nil {
		return nil, fmt.Errorf("make namespaces: %w", err)
	}
	if all&unix.CLONE_NEWUSER != 0 {
		if err := WriteMappings(p.Pid(), uids, gids); err != nil {
			return nil, err
		}
	}
	var files []*os.File
	for _, f := range flags {
		file, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", p.Pid(), kinds[f]))
		if err != nil {
			for _, file := range files {
				file.Close()
			}
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

// UserNamespace makes a user namespace with the given mappings.
func UserNamespace(uids, gids []specs.LinuxIDMapping) (*os.File, error) {
	files, err := Namespaces(uids, gids, unix.CLONE_NEWUSER)
	if err != nil {
		return nil, err
	}
	return files[0], nil
}

// WriteMappings maps the ids of the user namespace that a child was born in
// (user_namespaces(7)).
func WriteMappings(pid int, uids, gids []specs.LinuxIDMapping) error {
	for _, m := range []struct {
		file string
		maps []specs.LinuxIDMapping
	}{{"gid_map", gids}, {"uid_map", uids}} {
		var b strings.Builder
		for _, l := range m.maps {
			fmt.Fprintf(&b, "%d %d %d\n", l.ContainerID, l.HostID, l.Size)
		}
		// One write: the kernel takes no second.
		path := "/proc/" + strconv.Itoa(pid) + "/" + m.file
		if err := sys.WriteKernel(path, b.String()); err != nil {
			return fmt.Errorf("map ids %q: %w", strings.TrimSpace(b.String()), err)
		}
	}
	return nil
}

// Mappings returns the id mappings of a user namespace, as our own namespace
// sees them.
func Mappings(user *os.File) (uids, gids []specs.LinuxIDMapping, retErr error) {
	t, err := NewTable()
	if err != nil {
		return nil, nil, err
	}
	defer t.Close()
	t.Call("join namespace "+user.Name(), unix.SYS_SETNS, user, unix.CLONE_NEWUSER)
	t.Notify("tell that the namespace is joined")
	t.Wait("stay in it")
	p, err := t.Start(Options{})
	if err != nil {
		return nil, nil, err
	}
	defer p.Close()
	defer func() { retErr = errors.Join(retErr, p.Kill()) }()
	if err := p.Notified(context.Background()); err != nil {
		return nil, nil, err
	}
	return MappingsOf(p.Pid())
}

// MappingsOf returns the id mappings of a process's user namespace, as our own
// namespace sees them.
func MappingsOf(pid int) (uids, gids []specs.LinuxIDMapping, err error) {
	if uids, err = readMappings(pid, "uid_map"); err == nil {
		gids, err = readMappings(pid, "gid_map")
	}
	return uids, gids, err
}

func readMappings(pid int, file string) (maps []specs.LinuxIDMapping, _ error) {
	path := "/proc/" + strconv.Itoa(pid) + "/" + file
	data, err := sys.ReadKernel(path)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(data)) {
		var m specs.LinuxIDMapping
		if _, err := fmt.Sscan(line, &m.ContainerID, &m.HostID, &m.Size); err != nil {
			return nil, fmt.Errorf("%s: %q: %w", path, line, err)
		}
		maps = append(maps, m)
	}
	return maps, nil
}
