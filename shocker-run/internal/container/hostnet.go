package container

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// inNetns calls f on a thread that is in the network namespace. The thread
// dies with its goroutine: it never runs anything else.
func inNetns(ns *os.File, f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			result <- &os.PathError{Op: "join network namespace", Path: ns.Name(), Err: err}
			return
		}
		result <- f()
	}()
	return <-result
}

// prepareForeignNet does for a network namespace of the host what the
// container's root would do in its own: the loopback interface up, and the
// net sysctls, those of the record and those that let every user bind low
// ports and ping.
func prepareForeignNet(ns *os.File, sysctls map[string]string) error {
	return inNetns(ns, func() error {
		if err := loopbackUp(); err != nil {
			return err
		}
		for key, value := range sysctls {
			// /proc/sys/net shows the namespace of the thread that opens it.
			path := "/proc/sys/" + sysctlPath(key)
			if err := os.WriteFile(path, []byte(value), 0); err != nil {
				return fmt.Errorf("sysctl %s: %w", key, err)
			}
		}
		return nil
	})
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	return nil
}

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
		return fmt.Errorf("%w: sysctl %q", ErrInvalid, key)
	}
	ok := false
	switch {
	case strings.HasPrefix(path, "net/"):
		ok = n.own(unix.CLONE_NEWNET)
	case strings.HasPrefix(path, "fs/mqueue/"), strings.HasPrefix(path, "kernel/shm"),
		strings.HasPrefix(path, "kernel/msg"), path == "kernel/sem":
		ok = n.own(unix.CLONE_NEWIPC)
	case path == "kernel/domainname":
		ok = n.own(unix.CLONE_NEWUTS)
	case path == "kernel/hostname":
		return fmt.Errorf("%w: sysctl %q: use the hostname of the config", ErrInvalid, key)
	}
	if !ok {
		return fmt.Errorf("%w: sysctl %q is not of a namespace of the container's own", ErrInvalid, key)
	}
	return nil
}

var errNoProc = errors.New("sysctl needs a proc mount")
