package net

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/record"
	"shocker.sh/lib/stage"
	"shocker.sh/lib/sys"
	"shocker.sh/lib/undo"
	"shocker.sh/shocker-net/internal/nsdo"
)

// up is the making of one container's part.
type up struct {
	host   stage.Host
	mode   string
	record *record.Record
	log    *undo.Log
	done   []*undo.Entry
}

func (u *up) push(e *undo.Entry) error {
	e.Stage = Name
	if err := u.log.Push(e); err != nil {
		return err
	}
	u.done = append(u.done, e)
	return nil
}

func (u *up) undo() error {
	var errs []error
	for i := len(u.done) - 1; i >= 0; i-- {
		errs = append(errs, u.log.Undo(u.done[i]))
	}
	return errors.Join(errs...)
}

// pin keeps a namespace by a bind mount in the run dir and returns its path.
func (u *up) pin(name string, ns *os.File) (string, error) {
	dir := filepath.Join(u.host.RunDir(u.record.ID()), "ns")
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	path := filepath.Join(dir, name)
	if mounted, err := sys.IsMountPoint(path); err != nil || mounted {
		return "", errors.Join(err, fmt.Errorf("%s namespace of %s is there already: %s", name, u.record.ID(), path))
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(ns.Fd()), &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: ns.Name(), Err: err}
	}
	entry := &undo.Entry{Class: undo.Exit, Op: undo.OpUnmount, Path: path, Dev: st.Dev, Ino: st.Ino}
	if err := u.push(entry); err != nil {
		return "", err
	}
	if err := os.WriteFile(path, nil, 0o400); err != nil {
		return "", err
	}
	return path, sys.Mount(fmt.Sprintf("/proc/self/fd/%d", ns.Fd()), path, "", unix.MS_BIND, "")
}

// group marks the host's ends of our pairs (ip link show group 42002).
const group = 42002

// connect sets up what is inside the network namespace, and with a bridge the
// veth pair that leads there. The pair needs no undo: the kernel deletes it
// with the namespace, which RTM_DELLINK would only make us wait for.
func (u *up) connect(ns *os.File, n network) error {
	if u.mode == modeNone {
		return nsdo.Do(ns, func() error { return inside(nil, n) })
	}
	lease, err := n.subnet.Take(u.host.Leases(), u.record.ID(), u.push, u.log.Drop)
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = interfaceName(u.record.ID())
	attrs.MasterIndex = n.bridge
	attrs.Flags = net.FlagUp
	attrs.Group = group
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns.Fd()))}
	err = netlink.LinkAdd(pair)
	if errors.Is(err, unix.EEXIST) {
		if err = deleteStale(attrs.Name); err == nil {
			err = netlink.LinkAdd(pair)
		}
	}
	if err != nil {
		return fmt.Errorf("make veth pair %s: %w", attrs.Name, err)
	}
	if err := netlink.LinkSetHairpin(pair, true); err != nil {
		return fmt.Errorf("let %s reach itself: %w", attrs.Name, err)
	}
	if err := nsdo.Do(ns, func() error { return inside(&lease, n) }); err != nil {
		return err
	}
	address := lease.Addr().String()
	if err := u.record.Set(address, "annotations", record.AnnotationAddress); err != nil {
		return err
	}
	return u.addHost(address)
}

// deleteStale deletes the pair that the container had when it ran before, if
// the kernel has not come to it yet.
func deleteStale(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return ignoreNotFound(err)
	}
	if link.Type() != "veth" || link.Attrs().Group != group {
		return fmt.Errorf("the interface is there and %w", ErrForeign)
	}
	return ignoreNotFound(netlink.LinkDel(link))
}

// inside runs in the namespace. Ports below 1024 and ping are free for every
// user in it, as with Docker: the namespace is the container's own.
func inside(lease *netip.Prefix, n network) error {
	for file, value := range map[string]string{
		"ipv4/ip_unprivileged_port_start": "0",
		"ipv4/ping_group_range":           "0 65535",
	} {
		if err := sys.WriteKernel("/proc/sys/net/"+file, value); err != nil {
			// Groups that are not mapped are refused: then ping stays root's.
			if !errors.Is(err, unix.EINVAL) {
				return err
			}
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("set up lo: %w", err)
	}
	if lease == nil {
		return nil
	}
	eth0, err := netlink.LinkByName("eth0")
	if err == nil {
		err = netlink.AddrAdd(eth0, &netlink.Addr{IPNet: ipNet(*lease)})
	}
	if err == nil {
		err = netlink.LinkSetUp(eth0)
	}
	if err == nil {
		err = netlink.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: n.subnet.Gateway().Addr().AsSlice()})
	}
	if err != nil {
		return fmt.Errorf("set up eth0 with %s: %w", lease, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}

// interfaceName is the host's end of the pair: veth42045 for ps_42045, else a
// hash of the id, since a name has 15 bytes.
func interfaceName(id string) string {
	if digits, ok := strings.CutPrefix(id, "ps_"); ok && len(digits) <= 11 && strings.Trim(digits, "0123456789") == "" {
		return "veth" + digits
	}
	h := fnv.New64a()
	h.Write([]byte(id))
	return fmt.Sprintf("vs%012x", h.Sum64()>>16)
}

// addHost names the container by its host name in its own /etc/hosts, if the
// first stage made one.
func (u *up) addHost(address string) error {
	f, err := os.OpenFile(filepath.Join(u.host.RunDir(u.record.ID()), "hosts"), os.O_WRONLY|os.O_APPEND, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var hostname string
	if _, err := u.record.Get(&hostname, "hostname"); err != nil || hostname == "" {
		return errors.Join(err, f.Close())
	}
	_, err = fmt.Fprintf(f, "%s\t%s\n", address, hostname)
	return errors.Join(err, f.Close())
}
