package container

import (
	"errors"
	"fmt"
	"os"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

var namespaceFlags = map[specs.LinuxNamespaceType]int{
	specs.UserNamespace:    unix.CLONE_NEWUSER,
	specs.NetworkNamespace: unix.CLONE_NEWNET,
	specs.MountNamespace:   unix.CLONE_NEWNS,
	specs.PIDNamespace:     unix.CLONE_NEWPID,
	specs.UTSNamespace:     unix.CLONE_NEWUTS,
	specs.IPCNamespace:     unix.CLONE_NEWIPC,
	specs.CgroupNamespace:  unix.CLONE_NEWCGROUP,
	specs.TimeNamespace:    unix.CLONE_NEWTIME,
}

// namespaces says in which namespaces the container lives: new ones, others'
// that are joined by their path, or, where the record names none, the host's.
type namespaces struct {
	create int // CLONE_NEW flags
	join   []joined
}

type joined struct {
	flag int
	file *os.File
}

// openNamespaces opens those that are to be joined and checks their kinds.
// The caller closes them.
func openNamespaces(list []specs.LinuxNamespace) (_ *namespaces, retErr error) {
	n := &namespaces{}
	defer func() {
		if retErr != nil {
			n.close()
		}
	}()
	seen := 0
	for _, ns := range list {
		flag, ok := namespaceFlags[ns.Type]
		if !ok {
			return nil, fmt.Errorf("%w: namespace %q", ErrInvalid, ns.Type)
		}
		if seen&flag != 0 {
			return nil, fmt.Errorf("%w: namespace %q appears twice", ErrInvalid, ns.Type)
		}
		seen |= flag
		if ns.Path == "" {
			n.create |= flag
			continue
		}
		f, err := os.OpenFile(ns.Path, unix.O_NONBLOCK, 0) // a FIFO is no namespace to wait for
		if err != nil {
			return nil, fmt.Errorf("join %s namespace: %w", ns.Type, err)
		}
		n.join = append(n.join, joined{flag, f})
		if kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE); err != nil || kind != flag {
			return nil, fmt.Errorf("%w: %s is not a %s namespace", ErrInvalid, ns.Path, ns.Type)
		}
	}
	return n, nil
}

func (n *namespaces) close() {
	for _, j := range n.join {
		j.file.Close()
	}
}

// joins returns the namespace of that kind that is joined, or nil.
func (n *namespaces) joins(flag int) *os.File {
	for _, j := range n.join {
		if j.flag == flag {
			return j.file
		}
	}
	return nil
}

// own says whether the container gets a namespace of that kind that is not
// the host's.
func (n *namespaces) own(flag int) bool { return n.create&flag != 0 || n.joins(flag) != nil }

// apart says whether what is set for the namespace of that kind leaves the host
// alone: it is the container's own, and not by its path the one that we are in.
func (n *namespaces) apart(flag int) (bool, error) {
	ns := n.joins(flag)
	if ns == nil {
		return n.create&flag != 0, nil
	}
	i := slices.IndexFunc(allKinds, func(k namespaceKind) bool { return k.flag == flag })
	ours, err := os.Stat("/proc/thread-self/ns/" + allKinds[i].name)
	if err != nil {
		return false, err
	}
	theirs, err := ns.Stat()
	return err == nil && !os.SameFile(ours, theirs), err
}

// foreign says whether the namespace of that kind belongs to another user
// namespace than the container's: then the container's root has no power over
// it, and cannot mount the file system that shows it.
func (n *namespaces) foreign(flag int) (bool, error) {
	if !n.own(unix.CLONE_NEWUSER) || n.create&flag != 0 {
		return false, nil
	}
	ns, user := n.joins(flag), n.joins(unix.CLONE_NEWUSER)
	if ns == nil || user == nil {
		return true, nil
	}
	fd, err := unix.IoctlRetInt(int(ns.Fd()), unix.NS_GET_USERNS)
	if errors.Is(err, unix.EPERM) {
		return true, nil
	}
	if err != nil {
		return false, &os.PathError{Op: "look up owner of", Path: ns.Name(), Err: err}
	}
	owner := os.NewFile(uintptr(fd), ns.Name())
	defer owner.Close()
	same, err := sameNamespace(owner, user)
	return !same, err
}

func sameNamespace(a, b *os.File) (bool, error) {
	sa, err := a.Stat()
	if err != nil {
		return false, err
	}
	sb, err := b.Stat()
	if err != nil {
		return false, err
	}
	return os.SameFile(sa, sb), nil
}
