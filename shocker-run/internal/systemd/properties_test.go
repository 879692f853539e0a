package systemd

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"shocker.sh/lib/cgroup"
	"shocker.sh/lib/cgroup/devices"
	"shocker.sh/lib/cgroup/resources"
)

// text is properties as NAME=VALUE, in D-Bus's notation.
func text(all []property) string {
	var lines []string
	for _, p := range all {
		lines = append(lines, p.Name+"="+p.Value.String())
	}
	return strings.Join(lines, " ")
}

func TestLimits(t *testing.T) {
	const infinity = "18446744073709551615"
	for _, test := range []struct{ in, v1, v2 string }{
		{`null`, "", ""},
		{`{}`, "", ""},
		{ // docker update
			`{"cpu":{"shares":0,"quota":0,"period":0,"cpus":"","mems":""},"memory":{"limit":0,"swap":0,"reservation":0},"blockIO":{"weight":0}}`,
			"", "",
		},
		{`{"memory":{"limit":4096,"swap":8192}}`, "MemoryLimit=@t 4096", "MemoryMax=@t 4096 MemorySwapMax=@t 4096"},
		{`{"memory":{"limit":-1}}`, "MemoryLimit=@t " + infinity, "MemoryMax=@t " + infinity + " MemorySwapMax=@t " + infinity},
		{`{"memory":{"limit":4096,"swap":-1}}`, "MemoryLimit=@t 4096", "MemoryMax=@t 4096 MemorySwapMax=@t " + infinity},
		{`{"memory":{"limit":4096,"swap":4096}}`, "MemoryLimit=@t 4096", "MemoryMax=@t 4096 MemorySwapMax=@t 0"},
		{`{"cpu":{"shares":1024}}`, "CPUShares=@t 1024", "CPUWeight=@t 100"},
		{`{"cpu":{"shares":1024,"idle":1}}`, "CPUShares=@t 1024", "CPUWeight=@t 0"},
		{`{"cpu":{"quota":150000}}`, "CPUQuotaPerSecUSec=@t 1500000", "CPUQuotaPerSecUSec=@t 1500000"},
		{`{"cpu":{"quota":1,"period":100000}}`, "CPUQuotaPeriodUSec=@t 100000 CPUQuotaPerSecUSec=@t 10000", "CPUQuotaPeriodUSec=@t 100000 CPUQuotaPerSecUSec=@t 10000"},
		{`{"cpu":{"quota":-1}}`, "CPUQuotaPerSecUSec=@t " + infinity, "CPUQuotaPerSecUSec=@t " + infinity},
		{`{"cpu":{"period":50000}}`, "CPUQuotaPeriodUSec=@t 50000", "CPUQuotaPeriodUSec=@t 50000"},
		{`{"cpu":{"cpus":"0,9-10"}}`, "AllowedCPUs=@ay [0x1, 0x6]", "AllowedCPUs=@ay [0x1, 0x6]"},
		{`{"pids":{"limit":0}}`, "TasksMax=@t 1", "TasksMax=@t 1"},
		{`{"pids":{"limit":-5}}`, "TasksMax=@t " + infinity, "TasksMax=@t " + infinity},
		{`{"blockIO":{"weight":100}}`, "BlockIOWeight=@t 100", ""},
		{
			`{"devices":[{"allow":false},{"allow":true,"type":"c","access":"m"},{"allow":true,"type":"b","major":8,"access":"rw"},{"allow":true,"type":"c","major":1,"minor":3}]}`,
			`DeviceAllow=@a(ss) [] DeviceAllow=[("block-8", "rw",), ("char-*", "m",), ("/dev/char/1:3", "rwm",)] DevicePolicy="strict"`, "=",
		},
		{`{"devices":[{"allow":true}]}`, `DeviceAllow=@a(ss) [] DevicePolicy="auto"`, "="},
		{`{"devices":[]}`, `DeviceAllow=@a(ss) [] DevicePolicy="strict"`, "="},
		{
			`{"unified":{"cpu.max":"5000 20000","cpu.weight":"7","cpuset.cpus":"1","memory.high":"max","pids.max":"9","hugetlb.2MB.max":"0"}}`,
			"CPUQuotaPeriodUSec=@t 20000 CPUQuotaPerSecUSec=@t 250000 CPUWeight=@t 7 AllowedCPUs=@ay [0x2] MemoryHigh=@t " + infinity + " TasksMax=@t 9", "=",
		},
		{`{"unified":{"cpu.max":"max"}}`, "CPUQuotaPerSecUSec=@t " + infinity, "="},
	} {
		var r *specs.LinuxResources
		if err := json.Unmarshal([]byte(test.in), &r); err != nil {
			t.Fatal(err)
		}
		if test.v2 == "=" {
			test.v2 = test.v1
		}
		for version, want := range map[int]string{1: test.v1, 2: test.v2} {
			all, err := limits(version, r)
			if got := strings.ReplaceAll(text(all), "uint64 ", "@t "); err != nil || got != want {
				t.Errorf("limits(%d, %s) = %s, %v; want %s", version, test.in, got, err, want)
			}
		}
	}
}

func TestInvalidLimits(t *testing.T) {
	for in, want := range map[string]error{
		`{"cpu":{"cpus":"x"}}`:                                     resources.ErrInvalid,
		`{"unified":{"pids.max":"many"}}`:                          resources.ErrInvalid,
		`{"unified":{"cpu.max":"1 x"}}`:                            resources.ErrInvalid,
		`{"unified":{"cpuset.mems":"-"}}`:                          resources.ErrInvalid,
		`{"devices":[{"allow":true,"type":"x"}]}`:                  devices.ErrInvalid,
		`{"devices":[{"allow":true,"type":"c","minor":3}]}`:        devices.ErrInvalid,
		`{"devices":[{"allow":true,"type":"c","access":"write"}]}`: devices.ErrInvalid,
	} {
		var r *specs.LinuxResources
		if err := json.Unmarshal([]byte(in), &r); err != nil {
			t.Fatal(err)
		}
		if all, err := limits(2, r); !errors.Is(err, want) {
			t.Errorf("limits of %s = %v, %v; want %v", in, all, err, want)
		}
	}
}

func TestUnitProperties(t *testing.T) {
	all, err := unitProperties(cgroup.Unit{Slice: "a.slice", Name: "b-c.scope", Properties: map[string]string{
		"TimeoutStopSec": "3", "KillSignal": "int32 9", "CollectMode": "'inactive'",
	}}, 42)
	got := text(all)
	for _, want := range []string{
		`Description="container b-c" `, `Slice="a.slice" `, "PIDs=@au [42] ", `CollectMode="inactive-or-failed" CollectMode="inactive" `,
		"KillSignal=9 ", "TimeoutStopUSec=@t 3000000",
	} {
		if !strings.Contains(got+" ", want) {
			t.Errorf("properties are %s, %v; want %s", got, err, want)
		}
	}
	if _, err := unitProperties(cgroup.Unit{Properties: map[string]string{"X": "{"}}, 1); err == nil || !strings.Contains(fmt.Sprint(err), "property X") {
		t.Errorf("with a bad property: %v", err)
	}
}
