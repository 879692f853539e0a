package net

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/stage"
	"shocker.sh/lib/sys"
	"shocker.sh/shocker-net/internal/lease"
	"shocker.sh/shocker-net/internal/legacy"
	"shocker.sh/shocker-net/internal/nft"
)

const forwarding = "/proc/sys/net/ipv4/ip_forward"

// alias marks the bridge as ours.
const alias = "shocker"

// network is the host's part, ready for containers.
type network struct {
	subnet lease.Subnet
	bridge int // interface index
}

// hostState is RUN/.net/host.json: what to undo of the host's part. A field is
// written before its effect.
type hostState struct {
	Subnet     string      `json:"subnet"`
	Through    string      `json:"through"`              // the bridge
	Bridge     string      `json:"bridge,omitempty"`     // made by us
	Forwarding bool        `json:"forwarding,omitempty"` // switched on by us
	Table      bool        `json:"table,omitempty"`
	Chains     []nft.Chain `json:"chains,omitempty"` // that we have rules in
	Legacy     []string    `json:"legacy,omitempty"` // the same of iptables-legacy
	Ready      bool        `json:"ready,omitempty"`
}

func dir(h stage.Host) string       { return filepath.Join(h.Run, ".net") }
func stateFile(h stage.Host) string { return filepath.Join(dir(h), "host.json") }

func readState(h stage.Host) (*hostState, error) {
	s := &hostState{}
	data, err := os.ReadFile(stateFile(h))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(data, s)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", stateFile(h), err)
	}
	return s, nil
}

func (s *hostState) write(h stage.Host) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return sys.WriteFile(stateFile(h), data, 0o600, false)
}

// hold returns the host's part, made where it is missing, and keeps it from
// being taken away until held is closed, or for as long as there is a lease.
// When all is there this costs two questions to the kernel and a look for a
// file, and where others drop a look at their rules.
func hold(h stage.Host) (n network, held *os.File, err error) {
	subnet, err := lease.Parse(h.Subnet)
	if err == nil {
		err = checkBridge(h.Bridge)
	}
	if err != nil {
		return network{}, nil, err
	}
	for try := 0; ; try++ {
		held, err := lock(h, unix.LOCK_SH)
		if err != nil {
			return network{}, nil, err
		}
		n, missing, err := ready(h, subnet)
		if missing == nil && err == nil {
			return n, held, nil
		}
		held.Close()
		if err == nil && try == maxTries {
			err = fmt.Errorf("%w as soon as it is made: somebody takes it away", missing)
		}
		if err == nil {
			err = ensure(h, subnet)
		}
		if err != nil {
			return network{}, nil, err
		}
	}
}

// maxTries is how often the host's part may be taken away between its making
// and its use.
const maxTries = 100

// checkBridge refuses what the kernel does, and its templates: br%d.
func checkBridge(name string) error {
	if name == "." || name == ".." || len(name) >= unix.IFNAMSIZ || strings.ContainsAny(name, "/:% \t\n\v\f\r") {
		return fmt.Errorf("SHOCKER_BRIDGE %q: %w", name, ErrBridge)
	}
	return nil
}

// ensure makes the bridge, forwarding and the rules where they are missing.
func ensure(h stage.Host, subnet lease.Subnet) error {
	held, err := lock(h, unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer held.Close()
	if _, missing, err := ready(h, subnet); missing == nil || err != nil {
		return err
	}
	s, err := readState(h)
	if err != nil {
		return err
	}
	if s.Subnet != "" && (s.Subnet != subnet.String() || s.Through != h.Bridge) {
		used, err := leased(h)
		if err != nil {
			return err
		}
		if used {
			return fmt.Errorf("the network was made with SHOCKER_SUBNET %s and SHOCKER_BRIDGE %s, not %s and %s: stop all containers to change it",
				s.Subnet, s.Through, subnet, h.Bridge)
		}
		if err := s.takeAway(held); err != nil {
			return err
		}
		s = &hostState{}
	}
	s.Subnet, s.Through = subnet.String(), h.Bridge
	if err := s.makeBridge(h, subnet); err != nil {
		return err
	}
	if err := s.forward(h); err != nil {
		return err
	}
	if err := s.rules(h, subnet, held); err != nil {
		return err
	}
	s.Ready = true
	return s.write(h)
}

// lock keeps commands that set up or tear down (LOCK_EX) from each other and
// from those that use what is there (LOCK_SH), until the file is closed.
func lock(h stage.Host, how int) (*os.File, error) {
	for {
		err := os.MkdirAll(h.Leases(), 0o700)
		if errors.Is(err, fs.ErrNotExist) {
			continue // its parent has just been taken away
		}
		if err != nil {
			return nil, err
		}
		f, err := os.OpenFile(filepath.Join(dir(h), "lock"), os.O_CREATE|os.O_RDWR, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			continue // just taken away
		}
		if err != nil {
			return nil, err
		}
		if err := sys.Flock(f, how); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		at, err := sys.IsAt(f, f.Name())
		if at {
			return f, nil
		}
		f.Close()
		if err != nil {
			return nil, err
		}
	}
}

// leased says whether any container has an address.
func leased(h stage.Host) (bool, error) {
	taken, err := os.ReadDir(h.Leases())
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return len(taken) > 0, err
}

// ready says what is missing of the host's part as ensure leaves it: a rule of
// ours, too, in a chain that drops since, as when Docker has been started, or
// out of which somebody has taken it.
func ready(h stage.Host, subnet lease.Subnet) (n network, missing, _ error) {
	s, err := readState(h)
	if err != nil {
		return network{}, nil, err
	}
	link, err := netlink.LinkByName(h.Bridge)
	if ignoreNotFound(err) != nil {
		return network{}, nil, err
	}
	if err != nil || !s.Ready || s.Subnet != subnet.String() {
		return network{}, fmt.Errorf("bridge %s with subnet %s %w", h.Bridge, subnet, ErrMissing), nil
	}
	table, chains, old, err := firewalls()
	if err != nil {
		return network{}, nil, err
	}
	if !table {
		missing = fmt.Errorf("nftables table inet shocker %w", ErrMissing)
	}
	for _, c := range chains {
		ok, err := c.Accepts(h.Bridge)
		if err != nil {
			return network{}, nil, err
		}
		if !ok {
			missing = fmt.Errorf("chain %s of table %s drops what is forwarded, and our rule there %w", c.Name, c.Table, ErrMissing)
		}
	}
	if old != "" {
		ok, err := legacy.Accepts(old, h.Bridge)
		if err != nil {
			return network{}, nil, err
		}
		if !ok {
			missing = fmt.Errorf("chain %s of iptables-legacy drops what is forwarded, and our rule there %w", old, ErrMissing)
		}
	}
	return network{subnet, link.Attrs().Index}, missing, nil
}

// firewalls says whether our table is there, and which chains of others drop
// what is forwarded: of nftables, and one of iptables-legacy or "".
func firewalls() (table bool, chains []nft.Chain, old string, err error) {
	if table, chains, err = nft.Look(); err == nil {
		old, err = legacy.Dropping()
	}
	return table, chains, old, err
}

func ignoreNotFound(err error) error {
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	return err
}

// makeBridge makes the bridge with the subnet's first address, or takes one
// that is there with just that.
func (s *hostState) makeBridge(h stage.Host, subnet lease.Subnet) error {
	gateway := &netlink.Addr{IPNet: ipNet(subnet.Gateway())}
	link, err := netlink.LinkByName(h.Bridge)
	if err = ignoreNotFound(err); err != nil {
		return err
	}
	if link != nil && (s.Bridge == "" || link.Attrs().Alias != alias) {
		addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
		if err != nil {
			return err
		}
		same := slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.Equal(*gateway) })
		if link.Type() != "bridge" || !same {
			return fmt.Errorf("interface %s %w and has not the address %s: set SHOCKER_BRIDGE to another name", h.Bridge, ErrForeign, gateway.IPNet)
		}
		return s.write(h)
	}
	if link == nil {
		if err := overlap(subnet.Prefix); err != nil {
			return err
		}
		s.Bridge = h.Bridge
		if err := s.write(h); err != nil {
			return err
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.Alias, attrs.HardwareAddr = h.Bridge, alias, hardwareAddr(subnet)
		link = &netlink.Bridge{LinkAttrs: attrs}
		if err := netlink.LinkAdd(link); err != nil {
			return fmt.Errorf("make bridge %s: %w", h.Bridge, err)
		}
		if err := netlink.LinkSetAlias(link, alias); err != nil {
			return fmt.Errorf("mark bridge %s: %w", h.Bridge, err)
		}
	}
	if err := netlink.AddrReplace(link, gateway); err != nil {
		return fmt.Errorf("give %s the address %s: %w", h.Bridge, gateway.IPNet, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set up %s: %w", h.Bridge, err)
	}
	return adopt(link)
}

// hardwareAddr is the bridge's own. Without one it takes the lowest of its ports',
// which another container changes: then those that run reach nothing until
// their neighbour table finds out. Made of the bridge's address, it is also
// that of a bridge which was deleted and made anew.
func hardwareAddr(subnet lease.Subnet) net.HardwareAddr {
	ip := subnet.Gateway().Addr().As4()
	return append(net.HardwareAddr{0x02, 0x53}, ip[:]...) // locally administered
}

// adopt takes the containers' ends in that had another bridge, which somebody
// has deleted while they ran.
func adopt(bridge netlink.Link) error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	for _, l := range links {
		if l.Attrs().Group != group || l.Type() != "veth" || l.Attrs().MasterIndex != 0 {
			continue
		}
		err := netlink.LinkSetMaster(l, bridge)
		if err == nil {
			err = netlink.LinkSetHairpin(l, true)
		}
		if err = ignoreGone(err); err != nil {
			return fmt.Errorf("give %s the bridge %s: %w", l.Attrs().Name, bridge.Attrs().Name, err)
		}
	}
	return nil
}

// ignoreGone makes nothing of the error of an interface that has just gone.
func ignoreGone(err error) error {
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return ignoreNotFound(err)
}

// overlap refuses a subnet that has something in common with an address or a
// route of the host. Routes for all, and the two halves by which VPNs replace
// them, are none.
func overlap(subnet netip.Prefix) error {
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		ones, _ := r.Dst.Mask.Size()
		address, ok := netip.AddrFromSlice(r.Dst.IP.To4())
		if !ok || ones <= 1 || r.Type != unix.RTN_UNICAST && r.Type != unix.RTN_LOCAL {
			continue
		}
		if p := netip.PrefixFrom(address, ones); p.Overlaps(subnet) {
			through := ""
			if link, err := netlink.LinkByIndex(r.LinkIndex); err == nil {
				through = " through " + link.Attrs().Name
			}
			return fmt.Errorf("subnet %s %w with the host's route to %s%s: set SHOCKER_SUBNET to a free one", subnet, ErrOverlap, p, through)
		}
	}
	return nil
}

// forward switches IP forwarding on.
func (s *hostState) forward(h stage.Host) error {
	now, err := sys.ReadKernel(forwarding)
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(now)) != "0" {
		return nil
	}
	s.Forwarding = true
	if err := s.write(h); err != nil {
		return err
	}
	return sys.WriteKernel(forwarding, "1")
}

// rules makes our table, and lets our traffic pass where others drop.
func (s *hostState) rules(h stage.Host, subnet lease.Subnet, held *os.File) error {
	if !s.Table {
		foreign, err := nft.Foreign()
		if err != nil {
			return err
		}
		if foreign {
			return fmt.Errorf("nftables table inet shocker %w: rename it", ErrForeign)
		}
	}
	_, chains, old, err := firewalls()
	if err != nil {
		return err
	}
	s.Table = true
	for _, c := range chains {
		if !slices.Contains(s.Chains, c) {
			s.Chains = append(s.Chains, c)
		}
	}
	if old != "" && !slices.Contains(s.Legacy, old) {
		s.Legacy = append(s.Legacy, old)
	}
	if err := s.write(h); err != nil {
		return err
	}
	if err := nft.Make(h.Bridge, subnet.Prefix); err != nil {
		return err
	}
	for _, c := range chains {
		if err := c.Accept(h.Bridge); err != nil {
			return err
		}
	}
	if old == "" {
		return nil
	}
	return legacy.Accept(old, h.Bridge, held)
}

// Teardown takes the host's part away: our rules in others' chains, our
// table, our bridge, and forwarding if we had switched it on. It does nothing
// while a container has an address.
func Teardown(h stage.Host) error {
	if _, err := os.Stat(dir(h)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	held, err := lock(h, unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer held.Close()
	if used, err := leased(h); used || err != nil {
		return err
	}
	s, err := readState(h)
	if err != nil {
		return err
	}
	if err := s.takeAway(held); err != nil {
		return err
	}
	// Who waited for the lock may make it again at once.
	if err := os.RemoveAll(dir(h)); err != nil && !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	return nil
}

// takeAway undoes the host's part.
func (s *hostState) takeAway(held *os.File) error {
	var errs []error
	for _, c := range s.Chains {
		errs = append(errs, c.Withdraw(s.Through))
	}
	for _, c := range s.Legacy {
		errs = append(errs, legacy.Withdraw(c, s.Through, held))
	}
	if s.Table {
		errs = append(errs, nft.Remove())
	}
	if s.Bridge != "" {
		errs = append(errs, deleteBridge(s.Bridge))
	}
	if s.Forwarding {
		errs = append(errs, sys.WriteKernel(forwarding, "0"))
	}
	return errors.Join(errs...)
}

// deleteBridge deletes the bridge that we made. One without our mark was made
// by somebody else, unless we were killed before we could set it: then it has
// no address yet.
func deleteBridge(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return ignoreNotFound(err)
	}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	if link.Type() != "bridge" || link.Attrs().Alias != alias && len(addrs) > 0 {
		return nil
	}
	return ignoreNotFound(netlink.LinkDel(link))
}

// check says what is missing of a container's lease and of the host's part.
func check(h stage.Host, id, address string) error {
	subnet, err := lease.Parse(h.Subnet)
	if err != nil {
		return err
	}
	var errs []error
	owner, err := os.ReadFile(filepath.Join(h.Leases(), address))
	if err != nil || string(owner) != id {
		errs = append(errs, fmt.Errorf("lease of %s %w", address, ErrMissing))
	}
	if _, err := net.InterfaceByName(interfaceName(id)); err != nil {
		errs = append(errs, fmt.Errorf("interface %s %w", interfaceName(id), ErrMissing))
	}
	_, missing, err := ready(h, subnet)
	if missing != nil {
		missing = fmt.Errorf("%w: the next run makes it", missing)
	}
	errs = append(errs, err, missing)
	return errors.Join(errs...)
}
