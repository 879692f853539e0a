// Package nft is all that shocker-net says to nftables, through netlink and
// without the nft program: a table of our own, and two rules in chains of
// others that would drop what containers send.
package nft

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const tableName = "shocker"

// conntrack status bit IPS_DST_NAT: the destination was rewritten.
const statusDstNAT = 1 << 5

// Foreign says whether the table of our name is somebody else's: it has chains
// that we do not make.
func Foreign() (bool, error) {
	c, err := nftables.New()
	if err != nil {
		return false, err
	}
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, fmt.Errorf("list nftables: %w", err)
	}
	for _, chain := range chains {
		if chain.Table.Name == tableName && chain.Name != postrouting && chain.Name != forward {
			return true, nil
		}
	}
	return false, nil
}

// The chains of our table.
const postrouting, forward = "postrouting", "forward"

// Make makes our table, or makes it anew, in one transaction:
//
//	table inet shocker {
//	  chain postrouting { type nat hook postrouting priority srcnat
//	    ip saddr SUBNET oifname != BRIDGE masquerade }
//	  chain forward { type filter hook forward priority filter
//	    oifname BRIDGE iifname != BRIDGE ct state new ct status & dnat == 0 drop }
//	}
//
// The second keeps others from routing to ports that are not published.
func Make(bridge string, subnet netip.Prefix) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	t := c.AddTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyINet})
	c.FlushTable(t)
	post := c.AddChain(&nftables.Chain{
		Name: postrouting, Table: t, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	masquerade := append(fromSubnet(subnet), name(expr.MetaKeyOIFNAME, expr.CmpOpNeq, bridge)...)
	c.AddRule(&nftables.Rule{Table: t, Chain: post, Exprs: append(masquerade, &expr.Masq{})})
	filter := c.AddChain(&nftables.Chain{
		Name: forward, Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	drop := append(name(expr.MetaKeyOIFNAME, expr.CmpOpEq, bridge), name(expr.MetaKeyIIFNAME, expr.CmpOpNeq, bridge)...)
	drop = append(drop, ctBits(expr.CtKeySTATE, expr.CtStateBitNEW, expr.CmpOpNeq)...)
	drop = append(drop, ctBits(expr.CtKeySTATUS, statusDstNAT, expr.CmpOpEq)...)
	c.AddRule(&nftables.Rule{Table: t, Chain: filter, Exprs: append(drop, &expr.Verdict{Kind: expr.VerdictDrop})})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("make nftables table inet %s: %w", tableName, err)
	}
	return nil
}

// Remove removes our table; it is no error if there is none.
func Remove() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	c.DelTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyINet})
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove nftables table inet %s: %w", tableName, err)
	}
	return nil
}

// fromSubnet matches IPv4 packets with a source address in the subnet.
func fromSubnet(subnet netip.Prefix) []expr.Any {
	address := subnet.Masked().Addr().As4()
	var mask [4]byte
	for i := range subnet.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.NFPROTO_IPV4}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask[:], Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: address[:]},
	}
}

// name compares the name of an interface, all 16 bytes of it.
func name(key expr.MetaKey, op expr.CmpOp, iface string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, iface)
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: op, Register: 1, Data: padded},
	}
}

// ctBits compares some bits of a value of conntrack with 0.
func ctBits(key expr.CtKey, bits uint32, op expr.CmpOp) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: 1},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4),
		},
		&expr.Cmp{Op: op, Register: 1, Data: make([]byte, 4)},
	}
}

// Chain names a chain of somebody else.
type Chain struct {
	Family uint8  `json:"family"`
	Table  string `json:"table"`
	Name   string `json:"chain"`
}

func (c Chain) chain() *nftables.Chain {
	return &nftables.Chain{Name: c.Name, Table: &nftables.Table{Name: c.Table, Family: nftables.TableFamily(c.Family)}}
}

// Look says, by one question, whether our table is there, and which chains of
// others drop what is forwarded by their policy. Where Docker left one for
// administrators, that stands for it.
func Look() (made bool, dropping []Chain, _ error) {
	c, err := nftables.New()
	if err != nil {
		return false, nil, err
	}
	all, err := c.ListChains()
	if err != nil {
		return false, nil, fmt.Errorf("list chains of nftables: %w", err)
	}
	for _, ch := range all {
		family := ch.Table.Family
		ours := ch.Table.Name == tableName && family == nftables.TableFamilyINet
		made = made || ours
		if ours || ch.Hooknum == nil || *ch.Hooknum != *nftables.ChainHookForward ||
			ch.Policy == nil || *ch.Policy != nftables.ChainPolicyDrop ||
			family != nftables.TableFamilyIPv4 && family != nftables.TableFamilyINet {
			continue
		}
		into := Chain{uint8(family), ch.Table.Name, ch.Name}
		for _, user := range all {
			if user.Table.Name == ch.Table.Name && user.Table.Family == family && user.Name == "DOCKER-USER" {
				into.Name = user.Name
			}
		}
		dropping = append(dropping, into)
	}
	return made, dropping, nil
}

// Accept puts "-i BRIDGE -j ACCEPT" and "-o BRIDGE -j ACCEPT" at the head of
// a chain, in the form that iptables-nft shows, unless they are there.
func (c Chain) Accept(bridge string) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	rules, err := c.ours(conn, bridge)
	if err != nil || len(rules) == 2 {
		return err
	}
	for _, r := range rules {
		if err := conn.DelRule(r); err != nil {
			return err
		}
	}
	ch := c.chain()
	for _, key := range []expr.MetaKey{expr.MetaKeyOIFNAME, expr.MetaKeyIIFNAME} {
		conn.InsertRule(&nftables.Rule{Table: ch.Table, Chain: ch, Exprs: []expr.Any{
			&expr.Meta{Key: key, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: append([]byte(bridge), 0)},
			&expr.Counter{},
			&expr.Verdict{Kind: expr.VerdictAccept},
		}})
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("accept %s in chain %s of table %s: %w", bridge, c.Name, c.Table, err)
	}
	return nil
}

// Accepts says whether both rules are in the chain.
func (c Chain) Accepts(bridge string) (bool, error) {
	conn, err := nftables.New()
	if err != nil {
		return false, err
	}
	rules, err := c.ours(conn, bridge)
	return len(rules) == 2, err
}

// Withdraw takes the two rules out again. A chain that is gone has none.
func (c Chain) Withdraw(bridge string) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	rules, err := c.ours(conn, bridge)
	if err != nil || len(rules) == 0 {
		return err
	}
	for _, r := range rules {
		if err := conn.DelRule(r); err != nil {
			return err
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("withdraw rules from chain %s of table %s: %w", c.Name, c.Table, err)
	}
	return nil
}

// ours finds the two rules in the chain: nobody else writes rules that accept
// all of our bridge and nothing else.
func (c Chain) ours(conn *nftables.Conn, bridge string) ([]*nftables.Rule, error) {
	chains, err := conn.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list chains of nftables: %w", err)
	}
	there := false
	for _, ch := range chains {
		there = there || ch.Name == c.Name && ch.Table.Name == c.Table && uint8(ch.Table.Family) == c.Family
	}
	if !there {
		return nil, nil
	}
	ch := c.chain()
	rules, err := conn.GetRules(ch.Table, ch)
	if err != nil {
		return nil, fmt.Errorf("list rules of chain %s of table %s: %w", c.Name, c.Table, err)
	}
	var found []*nftables.Rule
	for _, r := range rules {
		if accepts(r.Exprs, bridge) {
			r.Table, r.Chain = ch.Table, ch
			found = append(found, r)
		}
	}
	return found, nil
}

func accepts(exprs []expr.Any, bridge string) bool {
	if len(exprs) != 4 {
		return false
	}
	meta, ok1 := exprs[0].(*expr.Meta)
	cmp, ok2 := exprs[1].(*expr.Cmp)
	_, ok3 := exprs[2].(*expr.Counter)
	verdict, ok4 := exprs[3].(*expr.Verdict)
	return ok1 && ok2 && ok3 && ok4 &&
		(meta.Key == expr.MetaKeyIIFNAME || meta.Key == expr.MetaKeyOIFNAME) &&
		cmp.Op == expr.CmpOpEq && bytes.Equal(cmp.Data, append([]byte(bridge), 0)) &&
		verdict.Kind == expr.VerdictAccept
}
