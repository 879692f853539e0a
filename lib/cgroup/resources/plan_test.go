package resources

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"shocker.sh/lib/cgroup/group"
	"shocker.sh/lib/cgroup/hierarchy"
)

func version1() *group.Group {
	g := &group.Group{Path: "/ps_1"}
	for _, c := range []string{"cpuset", "cpu", "memory", "pids", "blkio", "hugetlb", "rdma", "net_cls", "net_prio", "devices"} {
		g.Hierarchies = append(g.Hierarchies, hierarchy.Hierarchy{Mount: "/v1/" + c, Version: 1, Controllers: []string{c}})
	}
	return g
}

func version2() *group.Group {
	return &group.Group{Path: "/ps_1", Hierarchies: []hierarchy.Hierarchy{{
		Mount: "/v2", Version: 2, Controllers: []string{"cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc"},
	}}}
}

// text is a plan as lines of "file=value"; an alternative follows after "|".
func text(p *Plan) string {
	var lines []string
	for _, s := range p.steps {
		for _, v := range s.values {
			line := v.file + "=" + v.text
			if v.instead != nil {
				line += "|" + v.instead.file + "=" + v.instead.text
			}
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, ", ")
}

func parse(t *testing.T, resources string) *specs.LinuxResources {
	t.Helper()
	var r *specs.LinuxResources
	if err := json.Unmarshal([]byte(resources), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestPlan(t *testing.T) {
	for _, test := range []struct{ in, v1, v2 string }{
		{`null`, "", ""},
		{`{}`, "", ""},
		{`{"cpu":{},"memory":{},"pids":{},"blockIO":{},"network":{}}`, "", ""},
		{`{"cpu":{"shares":512}}`, "cpu.shares=512", "cpu.weight=59"},
		{ // docker update
			`{"cpu":{"shares":0,"quota":0,"period":0,"realtimeRuntime":0,"realtimePeriod":0,"cpus":"","mems":""},` +
				`"memory":{"limit":0,"reservation":0,"swap":0,"kernel":0},"blockIO":{"weight":0}}`, "", "",
		},
		{ // beyond 2^53
			`{"cpu":{"quota":9007199254740993},"memory":{"limit":9007199254740993}}`,
			"cpu.cfs_quota_us=9007199254740993, memory.limit_in_bytes=9007199254740993",
			"cpu.max=9007199254740993, memory.max=9007199254740993",
		},
		{
			`{"cpu":{"quota":50000}}`,
			"cpu.cfs_quota_us=50000", "cpu.max=50000",
		},
		{
			`{"cpu":{"period":20000}}`,
			"cpu.cfs_period_us=20000", "cpu.max=20000",
		},
		{
			`{"cpu":{"quota":-1,"period":50000,"burst":0,"idle":1}}`,
			"cpu.cfs_period_us=50000, cpu.cfs_quota_us=-1, cpu.cfs_burst_us=0, cpu.idle=1",
			"cpu.max=max 50000, cpu.max.burst=0, cpu.idle=1",
		},
		{`{"cpu":{"cpus":"0-1","mems":"0"}}`, "cpuset.cpus=0-1, cpuset.mems=0", "cpuset.cpus=0-1, cpuset.mems=0"},
		{`{"pids":{"limit":7}}`, "pids.max=7", "pids.max=7"},
		{`{"pids":{"limit":0}}`, "pids.max=1", "pids.max=1"},
		{`{"pids":{"limit":-1}}`, "pids.max=max", "pids.max=max"},
		{`{"memory":{"limit":1000000}}`, "memory.limit_in_bytes=1000000", "memory.max=1000000"},
		{
			`{"memory":{"limit":1000000,"swap":3000000,"reservation":500000}}`,
			"memory.limit_in_bytes=1000000, memory.memsw.limit_in_bytes=3000000, memory.soft_limit_in_bytes=500000",
			"memory.swap.max=2000000, memory.max=1000000, memory.low=500000",
		},
		{
			`{"memory":{"limit":-1}}`,
			"memory.limit_in_bytes=-1, memory.memsw.limit_in_bytes=-1", "memory.swap.max=max, memory.max=max",
		},
		{
			`{"memory":{"limit":1000000,"swap":-1}}`,
			"memory.limit_in_bytes=1000000, memory.memsw.limit_in_bytes=-1", "memory.swap.max=max, memory.max=1000000",
		},
		{
			`{"blockIO":{"weight":1000,"weightDevice":[{"major":8,"minor":0,"weight":10}],` +
				`"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":9}],"throttleWriteIOPSDevice":[{"major":8,"minor":16,"rate":0}]}}`,
			"blkio.bfq.weight=1000|blkio.weight=1000, blkio.bfq.weight_device=8:0 10|blkio.weight_device=8:0 10, " +
				"blkio.throttle.read_bps_device=8:0 9, blkio.throttle.write_iops_device=8:16 0",
			"io.bfq.weight=1000|io.weight=10000, io.bfq.weight=8:0 10|io.weight=8:0 1, io.max=8:0 rbps=9, io.max=8:16 wiops=max",
		},
		{
			`{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}`,
			"hugetlb.2MB.limit_in_bytes=4194304, hugetlb.2MB.rsvd.limit_in_bytes=4194304",
			"hugetlb.2MB.max=4194304, hugetlb.2MB.rsvd.max=4194304",
		},
		{
			`{"rdma":{"mlx5_1":{"hcaHandles":3,"hcaObjects":10000},"mlx4_0":{"hcaObjects":1}}}`,
			"rdma.max=mlx4_0 hca_object=1, rdma.max=mlx5_1 hca_handle=3 hca_object=10000",
			"rdma.max=mlx4_0 hca_object=1, rdma.max=mlx5_1 hca_handle=3 hca_object=10000",
		},
		{
			`{"network":{"classID":1048577,"priorities":[{"name":"eth0","priority":5}]}}`,
			"net_cls.classid=1048577, net_prio.ifpriomap=eth0 5", "error: controller",
		},
		{`{"memory":{"swappiness":60}}`, "memory.swappiness=60", "error: v2"},
		{`{"memory":{"disableOOMKiller":true}}`, "memory.oom_control=1", "error: v2"},
		{
			`{"cpu":{"realtimeRuntime":950000,"realtimePeriod":1000000}}`,
			"cpu.rt_period_us=1000000, cpu.rt_runtime_us=950000", "error: v2",
		},
		{`{"blockIO":{"leafWeight":10}}`, "blkio.leaf_weight=10", "error: v2"},
		{`{"memory":{"swap":10}}`, "memory.memsw.limit_in_bytes=10", "error: limit"},
		{`{"memory":{"swappiness":101}}`, "error: 101", "error: v2"},
		{`{"memory":{"swappiness":18446744073709551615}}`, "", ""},
		{
			`{"unified":{"memory.high":"900","cgroup.max.depth":"2","io.max":"8:0 rbps=1\n8:16 rbps=2"}}`,
			"error: controller", "cgroup.max.depth=2, io.max=8:0 rbps=1, io.max=8:16 rbps=2, memory.high=900",
		},
	} {
		for _, side := range []struct {
			g    *group.Group
			want string
		}{{version1(), test.v1}, {version2(), test.v2}} {
			p, err := New(side.g, parse(t, test.in))
			if strings.HasPrefix(side.want, "error") {
				if !errors.Is(err, ErrInvalid) && !errors.Is(err, group.ErrNoController) {
					t.Errorf("plan of %s: %v; want %s", test.in, err, side.want)
				}
				continue
			}
			if err != nil || text(p) != side.want {
				t.Errorf("plan of %s = %s, %v; want %s", test.in, text(p), err, side.want)
			}
		}
	}
}

func TestDropVersion1(t *testing.T) {
	const asked = `{"memory":{"limit":4096,"swappiness":60,"disableOOMKiller":true},"cpu":{"shares":512,"realtimePeriod":9,"realtimeRuntime":8},
		"blockIO":{"leafWeight":10,"weightDevice":[{"major":8,"minor":0,"weight":20,"leafWeight":30}]}}`
	r := parse(t, asked)
	if keys := DropVersion1(version1(), r); keys != nil || !reflect.DeepEqual(r, parse(t, asked)) {
		t.Errorf("on v1 %q were dropped", keys)
	}
	want := []string{
		"cpu.realtimePeriod", "cpu.realtimeRuntime", "memory.swappiness", "memory.disableOOMKiller",
		"blockIO.leafWeight", "blockIO.weightDevice.leafWeight",
	}
	if keys := DropVersion1(version2(), r); !slices.Equal(keys, want) {
		t.Errorf("on v2 %q were dropped; want %q", keys, want)
	}
	p, err := New(version2(), r)
	if err != nil {
		t.Fatal(err)
	}
	if got := text(p); got != "cpu.weight=59, memory.max=4096, io.bfq.weight=8:0 20|io.weight=8:0 102" {
		t.Errorf("plan of what is left: %s", got)
	}
	off := parse(t, `{"memory":{"swappiness":18446744073709551615,"disableOOMKiller":false},"cpu":{"realtimePeriod":0},"blockIO":{"leafWeight":0}}`)
	if keys := DropVersion1(version2(), off); keys != nil {
		t.Errorf("nothing was asked for, and %q dropped", keys)
	}
}

// The ends and the middle of the curve, which runc tests too.
func TestWeight(t *testing.T) {
	for shares, want := range map[uint64]uint64{
		1: 1, 2: 1, 3: 2, 1024: 100, 262143: 10000, 262144: 10000, 1 << 40: 10000,
	} {
		if got := Weight(shares); got != want {
			t.Errorf("Weight(%d) = %d; want %d", shares, got, want)
		}
	}
}

func TestControllersOfHybrid(t *testing.T) {
	g := version1()
	g.Hierarchies = append(g.Hierarchies[:3:3], version2().Hierarchies[0])
	g.Hierarchies[3].Controllers = []string{"hugetlb"}
	if _, err := New(g, parse(t, `{"pids":{"limit":7}}`)); !errors.Is(err, group.ErrNoController) {
		t.Errorf("without a pids controller: %v", err)
	}
	p, err := New(g, parse(t, `{"cpu":{"shares":7},"hugepageLimits":[{"pageSize":"2MB","limit":0}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := text(p); got != "cpu.shares=7, hugetlb.2MB.max=0, hugetlb.2MB.rsvd.max=0" {
		t.Errorf("plan = %s", got)
	}
	if need := p.Controllers().Need; len(need) != 1 || need[0] != "hugetlb" {
		t.Errorf("needed of v2: %v; want hugetlb alone", need)
	}
}

// What is part of every group needs no controller.
func TestControllersOfUnified(t *testing.T) {
	p, err := New(version2(), parse(t, `{"unified":{"cgroup.max.depth":"2","hugetlb.2MB.max":"0"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if need := p.Controllers().Need; len(need) != 1 || need[0] != "hugetlb" {
		t.Errorf("needed: %v; want hugetlb alone", need)
	}
}

func TestSame(t *testing.T) {
	for _, test := range []struct {
		same       func(have, text string) bool
		have, text string
		want       bool
	}{
		{sameBytes, "512000000", "512000001", true},
		{sameBytes, "512000000", "512004096", false},
		{sameBytes, "9223372036854771712", "-1", true},
		{sameBytes, "max", "max", true},
		{sameBytes, "max", "4096", false},
		{sameCPUs, "0-2", "0,1,2", true},
		{sameCPUs, "0-2,4", "4,0-2", true},
		{sameCPUs, "0-2", "0-3", false},
		{sameCPUs, "", "0", false},
		{sameLine, "8:0 rbps=1 wbps=max\n8:16 rbps=2", "8:0 rbps=1", true},
		{sameLine, "8:0 rbps=1 wbps=max\n8:16 rbps=2", "8:0 rbps=2", false},
		{sameLine, "8:0 5", "8:0 5", true},
		{sameLine, "", "8:0 0", true},
		{sameLine, "", "8:0 rbps=max", true},
		{sameLine, "", "8:0 5", false},
		{sameDefault, "default 100\n8:0 10", "100", true},
		{sameDefault, "default 100", "200", false},
		{sameHuge, "2097152", "3000000", true},
		{sameHuge, "4194304", "3000000", false},
		{oomKillerOff, "oom_kill_disable 1\nunder_oom 0", "1", true},
		{oomKillerOff, "oom_kill_disable 0\nunder_oom 0", "1", false},
	} {
		if got := test.same(test.have, test.text); got != test.want {
			t.Errorf("same(%q, %q) = %v", test.have, test.text, got)
		}
	}
}

// What is written to bring a file back to what it holds.
func TestBefore(t *testing.T) {
	for _, test := range []struct {
		before           func(have, text string) string
		have, text, want string
	}{
		{lineOr("0"), "8:0 5\n8:16 7", "8:16 9", "8:16 7"},
		{lineOr("0"), "8:0 5", "8:16 9", "8:16 0"},
		{lineOr(noIOMax), "8:0 rbps=1 wbps=max riops=max wiops=max", "8:0 wbps=9", "8:0 rbps=1 wbps=max riops=max wiops=max"},
		{lineOr(noIOMax), "", "8:0 wbps=9", "8:0 rbps=max wbps=max riops=max wiops=max"},
		{firstLine, "default 100\n8:0 50", "200", "default 100"},
		{oomKillerBefore, "oom_kill_disable 0\nunder_oom 0", "1", "0"},
		{oomKillerBefore, "oom_kill_disable 1\nunder_oom 0", "1", "1"},
		{unifiedBefore, "max", "900", "max"},
		{unifiedBefore, "max 100000", "5000 50000", "max 100000"},
		{unifiedBefore, "8:0 rbps=1 wbps=max", "8:0 rbps=2", "8:0 rbps=1 wbps=max"},
		{unifiedBefore, "", "8:0 rbps=2 wiops=1", "8:0 rbps=max wiops=max"},
	} {
		if got := test.before(test.have, test.text); got != test.want {
			t.Errorf("before(%q, %q) = %q; want %q", test.have, test.text, got, test.want)
		}
	}
}
