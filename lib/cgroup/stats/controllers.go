package stats

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"
)

func (s *Stats) cpu() *CPU {
	if s.CPU == nil {
		s.CPU = &CPU{}
	}
	return s.CPU
}

func cpu1(s *Stats, f *files) {
	c := s.cpu()
	t := f.table("cpu.stat")
	c.Periods, c.ThrottledPeriods, c.Throttled = t["nr_periods"], t["nr_throttled"], t["throttled_time"]
	c.Shares = f.limit("cpu.shares")
	if c.Quota = f.limit("cpu.cfs_quota_us"); c.Quota != nil {
		c.Period = f.limit("cpu.cfs_period_us")
	}
}

func cpuacct(s *Stats, f *files) {
	c := s.cpu()
	c.Usage = f.number("cpuacct.usage")
	c.User = f.number("cpuacct.usage_user")
	c.System = f.number("cpuacct.usage_sys")
}

func cpu2(s *Stats, f *files) {
	c := s.cpu()
	t := f.table("cpu.stat")
	const ns = uint64(time.Microsecond)
	c.Usage, c.User, c.System = t["usage_usec"]*ns, t["user_usec"]*ns, t["system_usec"]*ns
	c.Periods, c.ThrottledPeriods, c.Throttled = t["nr_periods"], t["nr_throttled"], t["throttled_usec"]*ns
	c.Weight = f.limit("cpu.weight")
	quota, period, _ := strings.Cut(f.text("cpu.max"), " ")
	if c.Quota = limit(quota); c.Quota != nil {
		c.Period = limit(period)
	}
}

func memory1(s *Stats, f *files) {
	t := f.table("memory.stat")
	s.Memory = &Memory{
		Usage:     f.number("memory.usage_in_bytes"),
		Peak:      f.number("memory.max_usage_in_bytes"),
		Limit:     f.limit("memory.limit_in_bytes"),
		SwapLimit: f.limit("memory.memsw.limit_in_bytes"),
		Anonymous: t["total_rss"],
		File:      t["total_cache"],
		Killed:    f.table("memory.oom_control")["oom_kill"],
	}
	if swap, ok := t["total_swap"]; ok { // absent without swap accounting
		s.Memory.Swap = &swap
	}
}

func memory2(s *Stats, f *files) {
	t := f.table("memory.stat")
	s.Memory = &Memory{
		Usage:     f.number("memory.current"),
		Peak:      f.number("memory.peak"),
		Limit:     f.limit("memory.max"),
		Swap:      f.limit("memory.swap.current"),
		SwapLimit: f.limit("memory.swap.max"),
		Anonymous: t["anon"],
		File:      t["file"],
		Killed:    f.table("memory.events")["oom_kill"],
	}
}

func pids(s *Stats, f *files) {
	s.Pids = &Pids{Current: f.number("pids.current"), Limit: f.limit("pids.max")}
}

// blkio reads lines such as "8:0 Read 4096".
func blkio(s *Stats, f *files) {
	devices := make(map[string]*IO)
	for _, table := range []struct {
		file        string
		read, write func(*IO) *uint64
	}{
		{
			"blkio.throttle.io_service_bytes_recursive",
			func(d *IO) *uint64 { return &d.ReadBytes }, func(d *IO) *uint64 { return &d.WriteBytes },
		},
		{
			"blkio.throttle.io_serviced_recursive",
			func(d *IO) *uint64 { return &d.ReadOperations }, func(d *IO) *uint64 { return &d.WriteOperations },
		},
	} {
		for line := range strings.Lines(f.text(table.file)) {
			w := strings.Fields(line)
			if len(w) != 3 || w[1] != "Read" && w[1] != "Write" {
				continue // sums
			}
			if devices[w[0]] == nil {
				devices[w[0]] = &IO{Device: w[0]}
			}
			to := table.read
			if w[1] == "Write" {
				to = table.write
			}
			*to(devices[w[0]]), _ = strconv.ParseUint(w[2], 10, 64)
		}
	}
	for _, d := range devices {
		s.IO = append(s.IO, *d)
	}
	slices.SortFunc(s.IO, func(a, b IO) int { return cmp.Compare(a.Device, b.Device) })
}

// io reads lines such as "8:0 rbytes=4096 wbytes=0 rios=1 wios=0".
func io(s *Stats, f *files) {
	for line := range strings.Lines(f.text("io.stat")) {
		w := strings.Fields(line)
		if len(w) < 2 {
			continue
		}
		d := IO{Device: w[0]}
		for _, field := range w[1:] {
			key, value, _ := strings.Cut(field, "=")
			n, _ := strconv.ParseUint(value, 10, 64)
			switch key {
			case "rbytes":
				d.ReadBytes = n
			case "wbytes":
				d.WriteBytes = n
			case "rios":
				d.ReadOperations = n
			case "wios":
				d.WriteOperations = n
			}
		}
		s.IO = append(s.IO, d)
	}
}
