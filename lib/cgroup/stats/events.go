package stats

import (
	"cmp"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"shocker.sh/lib/cgroup/group"
)

// Event is a line of an OCI runtime's `events`, in the form that runc has given
// it: the type is "stats", with data, or "oom", without.
type Event struct {
	Type string   `json:"type"`
	ID   string   `json:"id"`
	Data *Figures `json:"data,omitempty"`
}

// Figures are what runc shows of a container, under the names of cgroup v1.
// Times are in nanoseconds, sizes in bytes; a limit of 2^64-1 is none.
type Figures struct {
	CPU     cpuFigures                `json:"cpu"`
	CPUSet  cpusetFigures             `json:"cpuset"` // v1 only
	Memory  memoryFigures             `json:"memory"`
	Pids    pidsFigures               `json:"pids"`
	Blkio   blkioFigures              `json:"blkio"`
	Hugetlb map[string]hugetlbFigures `json:"hugetlb"` // by page size: 2MB
	// IntelRdt and NetworkInterfaces are for groups and interfaces that the
	// runtime makes itself: we make none.
	IntelRdt          struct{} `json:"intel_rdt"`
	NetworkInterfaces []string `json:"network_interfaces"`
}

type cpuFigures struct {
	Usage struct {
		Total        uint64   `json:"total,omitempty"`
		Percpu       []uint64 `json:"percpu,omitempty"`
		PercpuKernel []uint64 `json:"percpu_kernel,omitempty"`
		PercpuUser   []uint64 `json:"percpu_user,omitempty"`
		Kernel       uint64   `json:"kernel"`
		User         uint64   `json:"user"`
	} `json:"usage"`
	Throttling struct {
		Periods          uint64 `json:"periods,omitempty"`
		ThrottledPeriods uint64 `json:"throttledPeriods,omitempty"`
		ThrottledTime    uint64 `json:"throttledTime,omitempty"`
	} `json:"throttling"`
	PSI *pressure `json:"psi,omitempty"`
}

type cpusetFigures struct {
	CPUs                  []uint16 `json:"cpus,omitempty"`
	CPUExclusive          uint64   `json:"cpu_exclusive"`
	Mems                  []uint16 `json:"mems,omitempty"`
	MemHardwall           uint64   `json:"mem_hardwall"`
	MemExclusive          uint64   `json:"mem_exclusive"`
	MemoryMigrate         uint64   `json:"memory_migrate"`
	MemorySpreadPage      uint64   `json:"memory_spread_page"`
	MemorySpreadSlab      uint64   `json:"memory_spread_slab"`
	MemoryPressure        uint64   `json:"memory_pressure"`
	SchedLoadBalance      uint64   `json:"sched_load_balance"`
	SchedRelaxDomainLevel int64    `json:"sched_relax_domain_level"`
}

type memoryFigures struct {
	Cache     uint64            `json:"cache,omitempty"`
	Usage     counter           `json:"usage"`
	Swap      counter           `json:"swap"` // together with memory
	Kernel    counter           `json:"kernel"`
	KernelTCP counter           `json:"kernelTCP"`
	Raw       map[string]uint64 `json:"raw,omitempty"` // memory.stat
	PSI       *pressure         `json:"psi,omitempty"`
}

type counter struct {
	Limit   uint64 `json:"limit"`
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

type pidsFigures struct {
	Current uint64 `json:"current,omitempty"`
	Limit   uint64 `json:"limit,omitempty"`
}

type blkioFigures struct {
	ServiceBytes []blkioEntry `json:"ioServiceBytesRecursive,omitempty"`
	Serviced     []blkioEntry `json:"ioServicedRecursive,omitempty"`
	Queued       []blkioEntry `json:"ioQueueRecursive,omitempty"`
	ServiceTime  []blkioEntry `json:"ioServiceTimeRecursive,omitempty"`
	WaitTime     []blkioEntry `json:"ioWaitTimeRecursive,omitempty"`
	Merged       []blkioEntry `json:"ioMergedRecursive,omitempty"`
	Time         []blkioEntry `json:"ioTimeRecursive,omitempty"`
	Sectors      []blkioEntry `json:"sectorsRecursive,omitempty"`
	PSI          *pressure    `json:"psi,omitempty"`
}

type blkioEntry struct {
	Major uint64 `json:"major,omitempty"`
	Minor uint64 `json:"minor,omitempty"`
	Op    string `json:"op,omitempty"`
	Value uint64 `json:"value,omitempty"`
}

type hugetlbFigures struct {
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

// pressure is a file of pressure stall information (kernel 4.20).
type pressure struct {
	Some stall `json:"some"`
	Full stall `json:"full"`
}

// stall has averages in percent, and the total in microseconds.
type stall struct {
	Avg10  float64 `json:"avg10"`
	Avg60  float64 `json:"avg60"`
	Avg300 float64 `json:"avg300"`
	Total  uint64  `json:"total"`
}

// ReadFigures reads the figures of a group that exists.
func ReadFigures(g *group.Group) (*Figures, error) {
	s := &Figures{Hugetlb: map[string]hugetlbFigures{}}
	return collect(g, s, []part[Figures]{
		{"cpu", 1, func(s *Figures, f *files) {
			t := f.table("cpu.stat")
			s.CPU.throttled(t["nr_periods"], t["nr_throttled"], t["throttled_time"])
		}},
		{"cpuacct", 1, cpuacctFigures},
		{"cpuset", 1, cpusetFigures1},
		{"memory", 1, memoryFigures1},
		{"blkio", 1, blkioFigures1},
		{"hugetlb", 1, hugetlbFigures1},
		{"cpu", 2, cpuFigures2},
		{"memory", 2, memoryFigures2},
		{"io", 2, ioFigures2},
		{"hugetlb", 2, hugetlbFigures2},
		{"pids", 1, pidsFiguresOf},
		{"pids", 2, pidsFiguresOf},
	})
}

func (c *cpuFigures) throttled(periods, throttled, ns uint64) {
	c.Throttling.Periods, c.Throttling.ThrottledPeriods, c.Throttling.ThrottledTime = periods, throttled, ns
}

func cpuacctFigures(s *Figures, f *files) {
	const tick = 1e9 / 100 // ns; USER_HZ
	u, t := &s.CPU.Usage, f.table("cpuacct.stat")
	u.Total, u.User, u.Kernel = f.number("cpuacct.usage"), t["user"]*tick, t["system"]*tick
	for n := range strings.FieldsSeq(f.text("cpuacct.usage_percpu")) {
		u.Percpu = append(u.Percpu, parse(n))
	}
	for line := range strings.Lines(f.text("cpuacct.usage_all")) { // cpu user system
		w := strings.Fields(line)
		if len(w) < 3 || w[0] == "cpu" {
			continue
		}
		u.PercpuUser, u.PercpuKernel = append(u.PercpuUser, parse(w[1])), append(u.PercpuKernel, parse(w[2]))
	}
}

func cpuFigures2(s *Figures, f *files) {
	const us = 1000 // ns
	u, t := &s.CPU.Usage, f.table("cpu.stat")
	u.Total, u.User, u.Kernel = t["usage_usec"]*us, t["user_usec"]*us, t["system_usec"]*us
	s.CPU.throttled(t["nr_periods"], t["nr_throttled"], t["throttled_usec"]*us)
	s.CPU.PSI = f.pressure("cpu.pressure")
}

func cpusetFigures1(s *Figures, f *files) {
	c := &s.CPUSet
	c.CPUs, c.Mems = list(f.text("cpuset.cpus")), list(f.text("cpuset.mems"))
	for name, to := range map[string]*uint64{
		"cpu_exclusive": &c.CPUExclusive, "mem_hardwall": &c.MemHardwall, "mem_exclusive": &c.MemExclusive,
		"memory_migrate": &c.MemoryMigrate, "memory_spread_page": &c.MemorySpreadPage,
		"memory_spread_slab": &c.MemorySpreadSlab, "memory_pressure": &c.MemoryPressure,
		"sched_load_balance": &c.SchedLoadBalance,
	} {
		*to = f.number("cpuset." + name)
	}
	// -1 is the system's own level.
	c.SchedRelaxDomainLevel, _ = strconv.ParseInt(f.text("cpuset.sched_relax_domain_level"), 10, 64)
}

// list reads a list such as 0-2,4.
func list(text string) []uint16 {
	var all []uint16
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.ParseUint(first, 10, 16)
		to, err2 := strconv.ParseUint(last, 10, 16)
		for n := from; err1 == nil && err2 == nil && n <= to; n++ {
			all = append(all, uint16(n))
		}
	}
	return all
}

func memoryFigures1(s *Figures, f *files) {
	m := &s.Memory
	m.Raw = f.table("memory.stat")
	m.Cache = m.Raw["cache"]
	for prefix, to := range map[string]*counter{
		"memory": &m.Usage, "memory.memsw": &m.Swap, "memory.kmem": &m.Kernel, "memory.kmem.tcp": &m.KernelTCP,
	} {
		*to = counter{
			Limit: f.number(prefix + ".limit_in_bytes"), Usage: f.number(prefix + ".usage_in_bytes"),
			Max: f.number(prefix + ".max_usage_in_bytes"), Failcnt: f.number(prefix + ".failcnt"),
		}
	}
}

func memoryFigures2(s *Figures, f *files) {
	m := &s.Memory
	m.Raw = f.table("memory.stat")
	m.Cache = m.Raw["file"]
	m.Usage = counter{Limit: f.most("memory.max"), Usage: f.number("memory.current"), Max: f.number("memory.peak")}
	m.Swap = counter{Limit: f.most("memory.swap.max"), Usage: m.Usage.Usage + f.number("memory.swap.current")}
	if sum := m.Swap.Limit + m.Usage.Limit; sum >= m.Swap.Limit {
		m.Swap.Limit = sum
	} else {
		m.Swap.Limit = math.MaxUint64
	}
	m.PSI = f.pressure("memory.pressure")
}

func pidsFiguresOf(s *Figures, f *files) {
	s.Pids = pidsFigures{Current: f.number("pids.current"), Limit: f.number("pids.max")}
}

// blkioFigures1 takes the tables of the BFQ scheduler where it is at work, else
// those of the throttling layer, which knows less.
func blkioFigures1(s *Figures, f *files) {
	b := &s.Blkio
	b.Serviced = f.devices("blkio.bfq.io_serviced_recursive")
	if len(b.Serviced) == 0 {
		b.ServiceBytes = f.devices("blkio.throttle.io_service_bytes_recursive")
		b.Serviced = f.devices("blkio.throttle.io_serviced_recursive")
		return
	}
	for name, to := range map[string]*[]blkioEntry{
		"io_service_bytes": &b.ServiceBytes, "io_queued": &b.Queued, "io_service_time": &b.ServiceTime,
		"io_wait_time": &b.WaitTime, "io_merged": &b.Merged, "time": &b.Time, "sectors": &b.Sectors,
	} {
		*to = f.devices("blkio.bfq." + name + "_recursive")
	}
}

// devices reads lines such as "8:0 Read 4096" and "8:0 4096".
func (f *files) devices(file string) []blkioEntry {
	var all []blkioEntry
	for line := range strings.Lines(f.text(file)) {
		w := strings.Fields(line)
		if len(w) < 2 || !strings.Contains(w[0], ":") {
			continue // the sum of all
		}
		e := entry(w[0], "", w[len(w)-1])
		if len(w) > 2 {
			e.Op = w[1]
		}
		all = append(all, e)
	}
	return all
}

func entry(device, op, value string) blkioEntry {
	major, minor, _ := strings.Cut(device, ":")
	return blkioEntry{parse(major), parse(minor), op, parse(value)}
}

// ioFigures2 reads lines such as "8:0 rbytes=4096 wbytes=0 rios=1 wios=0".
func ioFigures2(s *Figures, f *files) {
	b := &s.Blkio
	for line := range strings.Lines(f.text("io.stat")) {
		w := strings.Fields(line)
		for _, field := range w[min(1, len(w)):] {
			key, value, _ := strings.Cut(field, "=")
			switch key {
			case "rbytes":
				b.ServiceBytes = append(b.ServiceBytes, entry(w[0], "Read", value))
			case "wbytes":
				b.ServiceBytes = append(b.ServiceBytes, entry(w[0], "Write", value))
			case "rios":
				b.Serviced = append(b.Serviced, entry(w[0], "Read", value))
			case "wios":
				b.Serviced = append(b.Serviced, entry(w[0], "Write", value))
			}
		}
	}
	b.PSI = f.pressure("io.pressure")
}

func hugetlbFigures1(s *Figures, f *files) {
	f.hugetlb(s, ".limit_in_bytes", func(prefix string) hugetlbFigures {
		return hugetlbFigures{f.number(prefix + ".usage_in_bytes"), f.number(prefix + ".max_usage_in_bytes"), f.number(prefix + ".failcnt")}
	})
}

func hugetlbFigures2(s *Figures, f *files) {
	f.hugetlb(s, ".max", func(prefix string) hugetlbFigures {
		return hugetlbFigures{Usage: f.number(prefix + ".current"), Failcnt: f.table(strings.TrimSuffix(prefix, ".rsvd") + ".events")["max"]}
	})
}

// hugetlb finds the page sizes, and reads what is reserved of each where the
// kernel counts that (5.7), else what is used.
func (f *files) hugetlb(s *Figures, suffix string, read func(prefix string) hugetlbFigures) {
	found, err := filepath.Glob(filepath.Join(f.dir, "hugetlb.*"+suffix))
	f.err = cmp.Or(f.err, err)
	for _, path := range slices.Sorted(slices.Values(found)) {
		prefix := strings.TrimSuffix(filepath.Base(path), suffix)
		size := strings.TrimSuffix(strings.TrimPrefix(prefix, "hugetlb."), ".rsvd")
		s.Hugetlb[size] = read(prefix) // SIZE.rsvd comes after SIZE
	}
}

// pressure reads lines such as "some avg10=0.00 avg60=0.00 avg300=0.00 total=0";
// nil where there is none.
func (f *files) pressure(file string) *pressure {
	text := f.text(file)
	if text == "" {
		return nil
	}
	p := &pressure{}
	for line := range strings.Lines(text) {
		w := strings.Fields(line)
		to := map[string]*stall{"some": &p.Some, "full": &p.Full}[w[0]]
		if to == nil {
			continue
		}
		for _, field := range w[1:] {
			key, value, _ := strings.Cut(field, "=")
			n, _ := strconv.ParseFloat(value, 64)
			switch key {
			case "avg10":
				to.Avg10 = n
			case "avg60":
				to.Avg60 = n
			case "avg300":
				to.Avg300 = n
			case "total":
				to.Total = parse(value)
			}
		}
	}
	return p
}

// most reads a limit; none is the largest number.
func (f *files) most(file string) uint64 {
	if text := f.text(file); text != "max" {
		return parse(text)
	}
	return math.MaxUint64
}

// parse reads a number; what is none is 0.
func parse(text string) uint64 {
	n, _ := strconv.ParseUint(text, 10, 64)
	return n
}
