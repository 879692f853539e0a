package legacy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/sys"
)

// names lists the tables that somebody has used: before that the kernel has
// none, and to ask for one would make it.
const names = "/proc/self/net/ip_tables_names"

// From the kernel's uapi/linux/netfilter_ipv4/ip_tables.h and
// uapi/linux/netfilter/x_tables.h, for 64-bit machines:
//
//	struct ipt_getinfo       name[32] valid_hooks hook_entry[5] underflow[5] num_entries size
//	struct ipt_get_entries   name[32] size pad, then entries
//	struct ipt_entry         src dst smsk dmsk iniface[16] outiface[16]
//	                         iniface_mask[16] outiface_mask[16] proto:16 flags:8 invflags:8
//	                         nfcache target_offset:16 next_offset:16 comefrom counters[2]:64
//	                         matches, then target
//	match or target          size:16 name[29] revision:8, then its own
//	target "" (standard)     verdict
//	target "ERROR"           the name of the chain that begins here
//	match "comment"          comment[256]
const (
	soGetInfo    = 64
	soGetEntries = 65

	infoSize       = 84
	infoHookEntry  = 36
	infoUnderflow  = 56
	infoTableSize  = 80
	entriesHead    = 40
	entriesSize    = 32
	entryIn        = 16
	entryInMask    = 48
	entryProto     = 80
	entryTarget    = 88
	entryNext      = 90
	entryHead      = 112
	extensionHead  = 32
	extensionName  = 2
	hookForward    = 2
	verdictDrop    = -1 // -NF_DROP - 1
	verdictAccept  = -2 // -NF_ACCEPT - 1
	ifNameSize     = unix.IFNAMSIZ
	forward        = "FORWARD"
	dockerUser     = "DOCKER-USER"
	targetStandard = ""
	targetError    = "ERROR"
)

// table is the filter table.
type table struct {
	policy int32             // verdict of FORWARD
	chains map[string][]rule // FORWARD, and those that people have made
}

// rule is what a rule matches, as far as we have to know.
type rule struct {
	in, out string // interface, exactly
	more    bool   // it matches something else as well
	comment string
	verdict int32
	begins  string // not a rule: the chain of this name begins
}

// accepts says whether the rule accepts all packets in one way: "-i" from the
// interface, "-o" to it.
func (r rule) accepts(way, iface string) bool {
	want := rule{in: iface, comment: r.comment, verdict: verdictAccept}
	if way == "-o" {
		want.in, want.out = "", iface
	}
	return r == want
}

// read reads the filter table; nil if there is none.
func read() (*table, error) {
	text, err := os.ReadFile(names)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !slices.Contains(strings.Fields(string(text)), "filter") {
		return nil, nil
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	for {
		info := make([]byte, infoSize)
		copy(info, "filter")
		if err := sys.Getsockopt(fd, unix.SOL_IP, soGetInfo, info); err != nil {
			return nil, fmt.Errorf("table filter of x_tables: %w", err)
		}
		size := binary.NativeEndian.Uint32(info[infoTableSize:])
		entries := make([]byte, entriesHead+int(size))
		copy(entries, "filter")
		binary.NativeEndian.PutUint32(entries[entriesSize:], size)
		err := sys.Getsockopt(fd, unix.SOL_IP, soGetEntries, entries)
		if errors.Is(err, unix.EAGAIN) {
			continue // it has just got another size
		}
		var t *table
		if err == nil {
			t, err = parse(info, entries[entriesHead:])
		}
		if err != nil {
			return nil, fmt.Errorf("table filter of x_tables: %w", err)
		}
		return t, nil
	}
}

// parse goes through the entries of all chains, which lie one behind the
// other. FORWARD is between two offsets; a chain of people begins with its
// name.
func parse(info, entries []byte) (*table, error) {
	begin := binary.NativeEndian.Uint32(info[infoHookEntry+4*hookForward:])
	end := binary.NativeEndian.Uint32(info[infoUnderflow+4*hookForward:])
	t := &table{chains: map[string][]rule{forward: nil}}
	chain := ""
	for at := 0; at < len(entries); {
		e := entries[at:]
		if len(e) < entryHead {
			return nil, ErrTable
		}
		next := int(binary.NativeEndian.Uint16(e[entryNext:]))
		if next < entryHead || next > len(e) {
			return nil, ErrTable
		}
		r, err := parseRule(e[:next])
		if err != nil {
			return nil, err
		}
		switch where := uint32(at); {
		case r.begins != "":
			chain = r.begins
			t.chains[chain] = nil
		case where == end:
			t.policy = r.verdict
		case begin <= where && where < end:
			t.chains[forward] = append(t.chains[forward], r)
		case chain != "":
			t.chains[chain] = append(t.chains[chain], r)
		}
		at += next
	}
	return t, nil
}

// parseRule reads one entry.
func parseRule(e []byte) (r rule, _ error) {
	r.in = iface(e[entryIn:], e[entryInMask:])
	r.out = iface(e[entryIn+ifNameSize:], e[entryInMask+ifNameSize:])
	// What it matches beside an interface that is named in full.
	rest := slices.Clone(e[:entryProto+4])
	for i, name := range []string{r.in, r.out} {
		if name != "" {
			clear(rest[entryIn+i*ifNameSize:][:ifNameSize])
			clear(rest[entryInMask+i*ifNameSize:][:ifNameSize])
		}
	}
	r.more = slices.ContainsFunc(rest, func(b byte) bool { return b != 0 })
	target := int(binary.NativeEndian.Uint16(e[entryTarget:]))
	for at := entryHead; at < target; {
		name, data, err := extension(e[:min(target, len(e))], at)
		if err != nil {
			return rule{}, err
		}
		if name == "comment" {
			r.comment = text(data)
		} else {
			r.more = true
		}
		at += extensionHead + len(data)
	}
	name, data, err := extension(e, target)
	if err != nil || len(data) < 4 {
		return rule{}, ErrTable
	}
	switch name {
	case targetStandard:
		r.verdict = int32(binary.NativeEndian.Uint32(data))
	case targetError:
		r.begins = text(data)
	}
	return r, nil
}

// extension reads the match or target at an offset of an entry.
func extension(e []byte, at int) (name string, data []byte, _ error) {
	if at < entryHead || at+extensionHead > len(e) {
		return "", nil, ErrTable
	}
	size := int(binary.NativeEndian.Uint16(e[at:]))
	if size < extensionHead || at+size > len(e) {
		return "", nil, ErrTable
	}
	return text(e[at+extensionName : at+extensionHead-1]), e[at+extensionHead : at+size], nil
}

// iface is the name of an interface if the mask asks for all of it, with the 0
// at its end.
func iface(name, mask []byte) string {
	s := text(name[:ifNameSize])
	if n := min(len(s)+1, ifNameSize); bytes.Count(mask[:n], []byte{0xff}) < n {
		return ""
	}
	return s
}

// text is a C string.
func text(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}
