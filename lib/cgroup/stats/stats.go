// Package stats reads what a cgroup uses, and what limits it has, into one
// form for cgroup v1 and v2.
package stats

import (
	"errors"
	"io/fs"
	"math"
	"strconv"
	"strings"

	"shocker.sh/lib/cgroup/group"
)

// Stats of one cgroup. A part is missing where the machine does not have its
// controller. A limit that is missing is none.
type Stats struct {
	Path      string  `json:"path"` // in the cgroup tree: /ps_42152
	Populated bool    `json:"populated"`
	Frozen    bool    `json:"frozen"`
	CPU       *CPU    `json:"cpu,omitempty"`
	Memory    *Memory `json:"memory,omitempty"`
	Pids      *Pids   `json:"pids,omitempty"`
	IO        []IO    `json:"io,omitempty"` // one a device
}

// CPU time in nanoseconds, quota and period in microseconds.
type CPU struct {
	Usage            uint64  `json:"usage"`
	User             uint64  `json:"user"`
	System           uint64  `json:"system"`
	Periods          uint64  `json:"periods"`          // that have passed under a quota
	ThrottledPeriods uint64  `json:"throttledPeriods"` // in which the quota was used up
	Throttled        uint64  `json:"throttled"`        // nanoseconds
	Shares           *uint64 `json:"shares,omitempty"` // v1
	Weight           *uint64 `json:"weight,omitempty"` // v2
	Quota            *uint64 `json:"quota,omitempty"`
	Period           *uint64 `json:"period,omitempty"`
}

// Memory in bytes.
type Memory struct {
	Usage     uint64  `json:"usage"`
	Peak      uint64  `json:"peak,omitempty"` // v2: since kernel 5.19
	Limit     *uint64 `json:"limit,omitempty"`
	Swap      *uint64 `json:"swap,omitempty"`      // used
	SwapLimit *uint64 `json:"swapLimit,omitempty"` // of swap alone; v1: of both together
	Anonymous uint64  `json:"anonymous"`
	File      uint64  `json:"file"` // page cache
	// Killed counts the processes that the OOM killer has taken.
	Killed uint64 `json:"oomKilled"`
}

// Pids counts processes and threads.
type Pids struct {
	Current uint64  `json:"current"`
	Limit   *uint64 `json:"limit,omitempty"`
}

// IO of one device since the group was made, in bytes and operations.
type IO struct {
	Device          string `json:"device"` // major:minor
	ReadBytes       uint64 `json:"readBytes"`
	WriteBytes      uint64 `json:"writeBytes"`
	ReadOperations  uint64 `json:"readOperations"`
	WriteOperations uint64 `json:"writeOperations"`
}

// Read reads the stats of a group that exists.
func Read(g *group.Group) (*Stats, error) {
	s := &Stats{Path: g.Path}
	var err error
	if s.Populated, err = g.Populated(); err != nil {
		return nil, err
	}
	if s.Frozen, err = g.Frozen(); err != nil {
		return nil, err
	}
	return collect(g, s, []part[Stats]{
		{"cpu", 1, cpu1},
		{"cpuacct", 1, cpuacct},
		{"cpu", 2, cpu2},
		{"memory", 1, memory1},
		{"memory", 2, memory2},
		{"pids", 1, pids},
		{"pids", 2, pids},
		{"blkio", 1, blkio},
		{"io", 2, io},
	})
}

// part is how the figures of one controller are read from its files, which
// differ between the versions of cgroups.
type part[S any] struct {
	controller string
	version    int
	read       func(*S, *files)
}

// collect reads into s those parts that the group has, and returns it.
func collect[S any](g *group.Group, s *S, parts []part[S]) (*S, error) {
	for _, p := range parts {
		h, ok := g.Find(p.controller)
		if !ok || h.Version != p.version {
			continue
		}
		f := &files{dir: g.In(h)}
		p.read(s, f)
		if f.err != nil {
			return nil, f.err
		}
	}
	return s, nil
}

// files reads the files of one directory. One that is missing is empty: which
// there are depends on the kernel and on what the parent hands down. The first
// other error stays.
type files struct {
	dir string
	err error
}

func (f *files) text(file string) string {
	text, err := group.Read(f.dir, file)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) && f.err == nil {
			f.err = err
		}
		return ""
	}
	return text
}

// number reads a number; "max" and what is missing are 0.
func (f *files) number(file string) uint64 {
	n, _ := strconv.ParseUint(f.text(file), 10, 64)
	return n
}

// limit reads a limit; nil is none.
func (f *files) limit(file string) *uint64 { return limit(f.text(file)) }

func limit(text string) *uint64 {
	n, err := strconv.ParseUint(text, 10, 64)
	// v1 writes "none" as the largest number of whole pages, quotas as -1.
	if err != nil || n >= math.MaxInt64&^0xffff {
		return nil
	}
	return &n
}

// table reads lines of a key and a number.
func (f *files) table(file string) map[string]uint64 { return table(f.text(file)) }

func table(text string) map[string]uint64 {
	t := make(map[string]uint64)
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			t[key] = n
		}
	}
	return t
}
