package cg

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	peer "github.com/opencontainers/cgroups"

	"shocker.sh/lib/cgroup/stats"
	"shocker.sh/lib/testkit"
)

// The form is that of runc's events: what reads those reads ours.
func TestFormOfEvents(t *testing.T) {
	const zero = `{"limit":0,"failcnt":0}`
	const want = `{"type":"stats","id":"x","data":{"cpu":{"usage":{"kernel":0,"user":0},"throttling":{}},` +
		`"cpuset":{"cpu_exclusive":0,"mem_hardwall":0,"mem_exclusive":0,"memory_migrate":0,"memory_spread_page":0,` +
		`"memory_spread_slab":0,"memory_pressure":0,"sched_load_balance":0,"sched_relax_domain_level":0},` +
		`"memory":{"usage":` + zero + `,"swap":` + zero + `,"kernel":` + zero + `,"kernelTCP":` + zero + `},` +
		`"pids":{},"blkio":{},"hugetlb":{},"intel_rdt":{},"network_interfaces":null}} {"type":"oom","id":"x"}`
	event, err1 := json.Marshal(stats.Event{Type: "stats", ID: "x", Data: &stats.Figures{}})
	oom, err2 := json.Marshal(stats.Event{Type: "oom", ID: "x"})
	got := strings.Replace(string(event), `"hugetlb":null`, `"hugetlb":{}`, 1) + " " + string(oom)
	if err := errors.Join(err1, err2); err != nil || got != want {
		t.Errorf("events are\n%s, %v; want\n%s", got, err, want)
	}
}

// The figures are those that runc's library reads.
func TestFiguresAsOpencontainersCgroups(t *testing.T) {
	h := newHost(t)
	h.up(rec("ps_1", `{"cpu":{"quota":20000,"period":10000},"memory":{"limit":90000000},"pids":{"limit":9}}`))
	_, out := h.enter("ps_1", "", "sh", "-c",
		"i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; x=$(head -c 20000000 /dev/zero | tr '\\0' x); echo has; sleep 1000; true")
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	h.ok("", "freeze", "ps_1")
	g, err := Named(h.Host, "ps_1")
	if err != nil {
		t.Fatal(err)
	}
	m, err := peerManager(g.Group, &peer.Cgroup{Name: "x", Resources: &peer.Resources{}})
	if err != nil {
		t.Fatal(err)
	}
	// The kernel goes on counting a little; two readings that agree are stable.
	testkit.Eventually(t, 10*time.Second, func() error {
		f, err := stats.ReadFigures(g.Group)
		if err != nil {
			t.Fatal(err)
		}
		s, err := m.GetStats()
		if err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]map[string]any
		if err := json.Unmarshal([]byte(strings.Replace(string(data), `"network_interfaces":null`, `"network_interfaces":{}`, 1)), &got); err != nil {
			t.Fatal(err)
		}
		cpu, mem := s.CpuStats, s.MemoryStats
		for _, c := range []struct {
			ours   any
			theirs any
		}{
			{got["cpu"]["usage"], map[string]any{
				"total": cpu.CpuUsage.TotalUsage, "percpu": cpu.CpuUsage.PercpuUsage, "kernel": cpu.CpuUsage.UsageInKernelmode,
				"percpu_kernel": cpu.CpuUsage.PercpuUsageInKernelmode, "percpu_user": cpu.CpuUsage.PercpuUsageInUsermode,
				"user": cpu.CpuUsage.UsageInUsermode,
			}},
			{got["cpu"]["throttling"], map[string]any{
				"periods": cpu.ThrottlingData.Periods, "throttledPeriods": cpu.ThrottlingData.ThrottledPeriods,
				"throttledTime": cpu.ThrottlingData.ThrottledTime,
			}},
			{got["cpuset"], s.CPUSetStats},
			{got["memory"]["usage"], entry(mem.Usage)},
			{got["memory"]["swap"], entry(mem.SwapUsage)},
			{got["memory"]["kernel"], entry(mem.KernelUsage)},
			{got["memory"]["kernelTCP"], entry(mem.KernelTCPUsage)},
			{got["memory"]["raw"], mem.Stats},
			{map[string]any{"cache": got["memory"]["cache"]}, map[string]any{"cache": mem.Cache}},
			{got["memory"]["psi"], mem.PSI},
			{got["pids"], s.PidsStats},
			{got["blkio"], map[string]any{
				"ioServiceBytesRecursive": s.BlkioStats.IoServiceBytesRecursive,
				"ioServicedRecursive":     s.BlkioStats.IoServicedRecursive, "psi": s.BlkioStats.PSI,
			}},
		} {
			if ours, theirs := plain(t, c.ours), plain(t, c.theirs); !reflect.DeepEqual(ours, theirs) {
				return fmt.Errorf("figures %v; by the library %v", ours, theirs)
			}
		}
		return nil
	})
	f, err := stats.ReadFigures(g.Group)
	if err != nil || f.Memory.Usage.Usage < 20e6 || f.Memory.Usage.Limit != 89997312 && f.Memory.Usage.Limit != 90000000 ||
		f.CPU.Usage.Total == 0 || f.Pids.Current != 2 || f.Pids.Limit != 9 {
		t.Errorf("figures %+v, %v", f, err)
	}
}

func entry(m peer.MemoryData) map[string]any {
	return map[string]any{"limit": m.Limit, "usage": m.Usage, "max": m.MaxUsage, "failcnt": m.Failcnt}
}

// plain is a value as JSON has it, without what is empty, and with lists in
// order: the library reads some out of maps.
func plain(t *testing.T, v any) any {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var p any
	if err := json.Unmarshal(data, &p); err != nil {
		t.Fatal(err)
	}
	return prune(p)
}

func prune(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, x := range v {
			if x = prune(x); x == nil || x == 0.0 || x == "" {
				delete(v, key)
			} else {
				v[key] = x
			}
		}
		if len(v) == 0 {
			return nil
		}
	case []any:
		for i := range v {
			v[i] = prune(v[i])
		}
		if len(v) == 0 {
			return nil
		}
		if _, number := v[0].(float64); !number {
			slices.SortFunc(v, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		}
	}
	return v
}

func TestWatchOOM(t *testing.T) {
	h := newHost(t)
	out := h.up(rec("ps_1", `{"memory":{"limit":20000000,"swap":20000000}}`))
	g, err := Named(h.Host, "ps_1")
	if err != nil {
		t.Fatal(err)
	}
	_, r := h.enter("ps_1", "", "sh", "-c", "echo up; sleep 1000")
	if _, err := bufio.NewReader(r).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	killed := make(chan struct{}, 100)
	done := make(chan error)
	watch := func(ctx context.Context) {
		done <- stats.WatchOOM(ctx, g.Group, func() { killed <- struct{}{} })
	}
	ctx, cancel := context.WithCancel(t.Context())
	go watch(ctx)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("WatchOOM without its context: %v", err)
	}
	go watch(t.Context())
	for range 2 {
		// Until the watch is on, nothing tells it of what has been.
		for seen := false; !seen; {
			if _, status := h.in("ps_1", "sh", "-c", "tail /dev/zero"); status == 0 {
				t.Fatal("it was not killed")
			}
			select {
			case <-killed:
				seen = true
			case err := <-done:
				t.Fatalf("the watch ended: %v", err)
			case <-time.After(testkit.Patience(time.Second)):
			}
		}
	}
	h.ok(out, "down")
	if err := <-done; err != nil {
		t.Errorf("WatchOOM of a group that goes: %v", err)
	}
}
