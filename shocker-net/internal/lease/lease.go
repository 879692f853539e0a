// Package lease hands out the addresses of a subnet. A lease is a file named
// by the address that holds the container's id: it is taken by link(2), so
// commands at once need no lock, and given back by the undo.
package lease

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"shocker.sh/lib/sys"
	"shocker.sh/lib/undo"
)

var (
	// ErrSubnet is a subnet that cannot serve.
	ErrSubnet = errors.New("not an IPv4 subnet of at least four addresses that hosts can have")
	// ErrExhausted is a subnet without a free address.
	ErrExhausted = errors.New("every address is in use")
)

// Subnet is an IPv4 subnet whose first address is the bridge's.
type Subnet struct{ netip.Prefix }

// Parse reads a subnet such as 10.0.0.0/24. Host bits are dropped.
func Parse(s string) (Subnet, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil || !p.Addr().Is4() || p.Bits() > 30 || p.Bits() < 8 || p.Addr().IsMulticast() || p.Addr().As4()[0] == 0 {
		return Subnet{}, fmt.Errorf("SHOCKER_SUBNET %q: %w", s, ErrSubnet)
	}
	return Subnet{p.Masked()}, nil
}

// Gateway is the bridge's address.
func (s Subnet) Gateway() netip.Prefix {
	return netip.PrefixFrom(s.Addr().Next(), s.Bits())
}

// Take leases a free address to the container id. The undo is written first.
func (s Subnet) Take(dir, id string, push func(*undo.Entry) error, drop func(*undo.Entry) error) (netip.Prefix, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return netip.Prefix{}, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return netip.Prefix{}, err
	}
	taken := make(map[string]bool, len(entries))
	for _, e := range entries {
		taken[e.Name()] = true
	}
	// From the address after the gateway's up to the one before broadcast.
	for a := s.Addr().Next().Next(); s.Contains(a.Next()); a = a.Next() {
		if taken[a.String()] {
			continue
		}
		path := filepath.Join(dir, a.String())
		entry := &undo.Entry{Class: undo.Exit, Op: undo.OpUnlink, Path: path, Data: id}
		if err := push(entry); err != nil {
			return netip.Prefix{}, err
		}
		err := sys.Claim(path, id)
		if err == nil {
			return netip.PrefixFrom(a, s.Bits()), nil
		}
		if dropErr := drop(entry); !errors.Is(err, fs.ErrExist) || dropErr != nil {
			return netip.Prefix{}, errors.Join(err, dropErr)
		}
	}
	return netip.Prefix{}, fmt.Errorf("subnet %s: %w: remove containers, or set SHOCKER_SUBNET to a larger one", s, ErrExhausted)
}
