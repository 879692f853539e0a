package container

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// checkNetDevices checks linux.netDevices (config-linux.md, "Network Devices").
func checkNetDevices(linux *specs.Linux) error {
	names := make(map[string]bool)
	for host, d := range linux.NetDevices {
		name := d.Name
		if name == "" {
			name = host
		}
		if !isInterface(host, false) || !isInterface(name, true) {
			return fmt.Errorf("%w: netDevices: %q as %q is not the name of an interface", ErrInvalid, host, name)
		}
		if names[name] && !strings.Contains(name, "%d") {
			return fmt.Errorf("%w: netDevices: two of them would be %q", ErrInvalid, name)
		}
		names[name] = true
	}
	return nil
}

// isInterface says whether the kernel takes a name, or a template for one.
func isInterface(name string, template bool) bool {
	if template {
		name = strings.Replace(name, "%d", "0", 1)
	}
	return name != "" && name != "." && name != ".." && len(name) < unix.IFNAMSIZ && !strings.ContainsAny(name, "/:% \t\n\v\f\r\x00")
}

// netSocket opens a socket in the container's network namespace, through which
// the parent gives moved interfaces their addresses back.
func (c *Container) netSocket(b *builder) {
	if len(c.spec.Linux.NetDevices) > 0 {
		c.net = b.Call("open rtnetlink", unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	}
}

// moveDevices moves interfaces of the host into the container. The kernel takes
// them back, or destroys them, with the namespace.
func (c *Container) moveDevices(pid int) (retErr error) {
	devices := c.spec.Linux.NetDevices
	if len(devices) == 0 {
		return nil
	}
	host, err := ownNet()
	if err != nil {
		return err
	}
	defer host.f.Close()
	socket, err := c.proc.File(c.net, "rtnetlink")
	if err != nil {
		return err
	}
	defer socket.Close()
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return err
	}
	defer ns.Close()
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		if err := moveDevice(host, rtnetlink{socket}, ns, name, devices[name].Name); err != nil {
			return fmt.Errorf("move interface %s into the container: %w", name, err)
		}
	}
	return nil
}

// moveDevice moves one interface, which loses its addresses by that, and gives
// those back that are meant to stay.
func moveDevice(host, inside rtnetlink, ns *os.File, name, newName string) error {
	before, err := inside.links()
	if err != nil {
		return err
	}
	outside, err := host.links()
	if err != nil {
		return err
	}
	index := int32(0)
	for i, n := range outside {
		if n == name {
			index = i
		}
	}
	if index == 0 {
		return unix.ENODEV
	}
	if newName == "" {
		newName = name
	}
	for _, n := range before {
		if n == newName {
			return fmt.Errorf("%w: the container has an interface %s", unix.EEXIST, newName)
		}
	}
	addresses, err := host.addresses(index)
	if err != nil {
		return err
	}
	move := attribute(linkMessage(index, 0, 0), unix.IFLA_NET_NS_FD, binary.NativeEndian.AppendUint32(nil, uint32(ns.Fd())))
	if newName != name {
		move = attribute(move, unix.IFLA_IFNAME, append([]byte(newName), 0))
	}
	if err := host.change(unix.RTM_NEWLINK, 0, move); err != nil {
		return err
	}
	after, err := inside.links()
	if err != nil {
		return err
	}
	for index := range after {
		if _, was := before[index]; !was {
			return inside.furnish(index, addresses(index))
		}
	}
	return errors.New("it has not arrived")
}

// furnish gives an interface its addresses and sets it up.
func (r rtnetlink) furnish(index int32, addresses [][]byte) error {
	for _, body := range addresses {
		if err := r.change(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, body); err != nil {
			return fmt.Errorf("add its address: %w", err)
		}
	}
	if err := r.change(unix.RTM_NEWLINK, 0, linkMessage(index, unix.IFF_UP, unix.IFF_UP)); err != nil {
		return fmt.Errorf("set it up: %w", err)
	}
	return nil
}
