package cg

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	peer "github.com/opencontainers/cgroups"
	_ "github.com/opencontainers/cgroups/devices"
	device "github.com/opencontainers/cgroups/devices/config"
	peer1 "github.com/opencontainers/cgroups/fs"
	peer2 "github.com/opencontainers/cgroups/fs2"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"shocker.sh/lib/cgroup/group"
	"shocker.sh/lib/cgroup/resources"
	"shocker.sh/lib/undo"
)

// What runc's library makes of a config is what we make of it: the files of two
// groups, one set by each, are compared.
func TestSameAsOpencontainersCgroups(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for i, updates := range [][]string{
		{`{"cpu":{"shares":512},"memory":{"limit":512000000},"pids":{"limit":4096}}`},
		{`{"cpu":{"shares":2,"quota":150000,"period":100000}}`},
		{`{"cpu":{"shares":262144,"quota":1000}}`},
		{`{"cpu":{"period":1000,"quota":1500}}`}, // neither order is taken from the defaults
		{`{"cpu":{"period":250000}}`},
		{`{"cpu":{"quota":-1}}`},
		{`{"cpu":{"quota":50000,"burst":20000}}`},
		{`{"cpu":{"idle":1}}`},
		{`{"cpu":{"cpus":"0","mems":"0"}}`},
		{`{"pids":{"limit":0}}`},
		{`{"pids":{"limit":-1}}`},
		{`{"memory":{"limit":100000000,"swap":200000000,"reservation":50000000}}`},
		{`{"memory":{"limit":100000000,"swap":100000000}}`},
		{`{"memory":{"limit":100000000,"swap":-1}}`},
		{`{"memory":{"limit":-1}}`},
		{`{"memory":{"limit":100000000,"swap":100000000}}`, `{"memory":{"limit":300000000,"swap":400000000}}`, `{"memory":{"limit":50000000,"swap":60000000}}`},
		{`{"cpu":{"quota":1000000,"period":1000000}}`, `{"cpu":{"quota":1000,"period":1000}}`, `{"cpu":{"quota":2000,"burst":1000}}`},
		{
			`{"devices":[{"allow":false},{"allow":true,"type":"c","major":1}]}`,
			`{"devices":[{"allow":false},{"allow":true,"type":"c","major":1,"access":"r"},{"allow":true,"type":"b"}]}`,
			`{"devices":[{"allow":true}]}`, `{"devices":[]}`,
		},
		{`{"devices":[]}`},
		{`{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"},` +
			`{"allow":true,"type":"c","major":136,"access":"rw"},{"allow":true,"type":"b","access":"m"},` +
			`{"allow":true,"type":"c","major":1,"minor":5,"access":"r"},{"allow":true,"type":"c","major":1,"minor":5,"access":"wm"},` +
			`{"allow":false,"type":"c","major":1,"minor":5,"access":"m"}]}`},
	} {
		first := limitsOf(t, updates[0])
		ours := newGroup(t, fmt.Sprintf("ours-%d", i), first)
		theirs := newGroup(t, fmt.Sprintf("theirs-%d", i), first)
		for _, update := range updates {
			r := limitsOf(t, update)
			p, err := resources.New(ours, r)
			if err == nil {
				err = p.Apply()
			}
			if err != nil {
				t.Fatalf("%s: %v", update, err)
			}
			if err := p.Check(); err != nil {
				t.Errorf("%s: %v", update, err)
			}
			if err := setPeer(theirs, r); err != nil {
				t.Fatalf("%s: the library: %v", update, err)
			}
			compare(t, update, ours, theirs)
		}
	}
}

func limitsOf(t *testing.T, text string) *specs.LinuxResources {
	t.Helper()
	var r *specs.LinuxResources
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// newGroup makes a group with the controllers that r needs.
func newGroup(t *testing.T, name string, r *specs.LinuxResources) *group.Group {
	t.Helper()
	g, err := group.New("/sys/fs/cgroup", fmt.Sprintf("/cg-peer-%d/%s", os.Getpid(), name))
	if err != nil {
		t.Fatal(err)
	}
	p, err := resources.New(g, r)
	if err != nil {
		t.Fatal(err)
	}
	unmake, err := g.Make(undo.Open(t.TempDir()), false, p.Controllers())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unmake(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// figures are files that change by themselves.
var figures = regexp.MustCompile(`stat|usage|current|events|pressure|peak|procs|tasks|threads|cpuacct|failcnt|slabinfo`)

func compare(t *testing.T, update string, a, b *group.Group) {
	t.Helper()
	for i, dir := range a.Dirs() {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.IsDir() || figures.MatchString(e.Name()) {
				continue
			}
			ours, err1 := os.ReadFile(filepath.Join(dir, e.Name()))
			theirs, err2 := os.ReadFile(filepath.Join(b.Dirs()[i], e.Name()))
			if errors.Is(err1, fs.ErrPermission) || err1 != nil && err2 != nil {
				continue // a file to be written only
			}
			if string(ours) != string(theirs) {
				t.Errorf("%s: %s is %q; by the library %q", update, filepath.Join(dir, e.Name()), ours, theirs)
			}
		}
	}
}

func setPeer(g *group.Group, r *specs.LinuxResources) error {
	c := &peer.Cgroup{Name: "x", Resources: translate(r)}
	if h := g.Hierarchies[0]; h.Version == 2 {
		m, err := peer2.NewManager(c, g.In(h))
		if err != nil {
			return err
		}
		return m.Set(c.Resources)
	}
	paths := make(map[string]string)
	for _, h := range g.Hierarchies {
		for _, name := range h.Controllers {
			if h.Version == 1 {
				paths[name] = g.In(h)
			}
		}
	}
	m, err := peer1.NewManager(c, paths)
	if err != nil {
		return err
	}
	return m.Set(c.Resources)
}

func amount(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}

// translate does what runc does before it calls the library.
func translate(r *specs.LinuxResources) *peer.Resources {
	to := &peer.Resources{SkipDevices: r.Devices == nil}
	if m := r.Memory; m != nil {
		to.Memory, to.MemorySwap, to.MemoryReservation = amount(m.Limit), amount(m.Swap), amount(m.Reservation)
	}
	if c := r.CPU; c != nil {
		if c.Shares != nil {
			to.CpuShares = *c.Shares
			to.CpuWeight = peer.ConvertCPUSharesToCgroupV2Value(*c.Shares)
		}
		to.CpuQuota = amount(c.Quota)
		if c.Period != nil {
			to.CpuPeriod = *c.Period
		}
		to.CpuBurst, to.CPUIdle = c.Burst, c.Idle
		to.CpusetCpus, to.CpusetMems = c.Cpus, c.Mems
	}
	if r.Pids != nil {
		to.PidsLimit = r.Pids.Limit
	}
	for _, d := range r.Devices {
		rule := &device.Rule{Type: 'a', Major: -1, Minor: -1, Permissions: "rwm", Allow: d.Allow}
		if d.Type != "" {
			rule.Type = device.Type(d.Type[0])
		}
		if d.Access != "" {
			rule.Permissions = device.Permissions(d.Access)
		}
		if d.Major != nil {
			rule.Major = *d.Major
		}
		if d.Minor != nil {
			rule.Minor = *d.Minor
		}
		to.Devices = append(to.Devices, rule)
	}
	return to
}
