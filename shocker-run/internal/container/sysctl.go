package container

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// defaultNetSysctls let the users of a network namespace bind any port and
// send pings, as Docker does: both are harmless in a namespace of one's own.
// Those that the record sets itself are left to it.
func defaultNetSysctls(m idMaps, asked map[string]string) map[string]string {
	last := uint32(1<<31 - 1)
	if len(m.gids) > 0 {
		last = 0
		for _, g := range m.gids {
			last = max(last, g.ContainerID+g.Size-1)
		}
	}
	all := make(map[string]string)
	for key, value := range map[string]string{
		"net.ipv4.ip_unprivileged_port_start": "0",
		"net.ipv4.ping_group_range":           fmt.Sprintf("0 %d", min(last, 1<<31-1)),
	} {
		if _, ok := asked[key]; !ok {
			all[key] = value
		}
	}
	return all
}

// sysctlPath is the path of a sysctl below /proc/sys. Both notations are
// known: a.b/c, where the dot of an interface's name is a slash, and a/b.c.
func sysctlPath(key string) string {
	dot, slash := strings.IndexByte(key, '.'), strings.IndexByte(key, '/')
	if slash >= 0 && (dot < 0 || slash < dot) {
		return key
	}
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, key)
}

// checkSysctl refuses a sysctl that is not of a namespace that the container
// has of its own: it would change the host.
func checkSysctl(key string, n *namespaces) error {
	path := sysctlPath(key)
	if path == "" || strings.HasPrefix(path, "/") || strings.Contains("/"+path+"/", "/../") {
		return fmt.Errorf("%w: sysctl %q: want a name such as net.ipv4.ip_forward", ErrInvalid, key)
	}
	flag := 0
	switch {
	case strings.HasPrefix(path, "net/"):
		flag = unix.CLONE_NEWNET
	case strings.HasPrefix(path, "fs/mqueue/"), strings.HasPrefix(path, "kernel/shm"),
		strings.HasPrefix(path, "kernel/msg"), path == "kernel/sem":
		flag = unix.CLONE_NEWIPC
	case path == "kernel/domainname":
		flag = unix.CLONE_NEWUTS
	case path == "kernel/hostname":
		return fmt.Errorf("%w: sysctl %q: use the hostname of the config", ErrInvalid, key)
	}
	ok, err := n.apart(flag)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%w: sysctl %q is not of a namespace of the container's own", ErrInvalid, key)
	}
	return nil
}
