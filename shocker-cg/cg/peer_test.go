package cg

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	peer "github.com/opencontainers/cgroups"
	_ "github.com/opencontainers/cgroups/devices"
	device "github.com/opencontainers/cgroups/devices/config"
	peer1 "github.com/opencontainers/cgroups/fs"
	peer2 "github.com/opencontainers/cgroups/fs2"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/cgroup/group"
	"shocker.sh/lib/cgroup/resources"
	"shocker.sh/lib/testkit"
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
		{`{"cpu":{"quota":1000000,"period":1000000}}`, `{"cpu":{"quota":1000,"period":1000}}`, `{"cpu":{"quota":2000,"period":1000,"burst":1000}}`},
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
		{ // of docker update
			`{"cpu":{"shares":300,"quota":30000,"period":90000,"cpus":"0","mems":"0"},"memory":{"limit":70000000,"swap":90000000,"reservation":50000000},"pids":{"limit":7}}`,
			`{"cpu":{"shares":0,"quota":0,"period":0,"realtimeRuntime":0,"realtimePeriod":0,"cpus":"","mems":""},"memory":{"limit":0,"reservation":0,"swap":0,"kernel":0},"blockIO":{"weight":0}}`,
		},
		{
			fill(`{"blockIO":{"throttleReadBpsDevice":[{DISK,"rate":1048576}],"throttleWriteBpsDevice":[{DISK,"rate":2097152}],` +
				`"throttleReadIOPSDevice":[{DISK,"rate":100}],"throttleWriteIOPSDevice":[{DISK,"rate":400000000}]}}`),
			fill(`{"blockIO":{"throttleReadBpsDevice":[{DISK,"rate":4096}]}}`),
		},
	} {
		first := limitsOf(t, updates[0])
		ours := newGroup(t, cgroupRoot, fmt.Sprintf("ours-%d", i), first)
		theirs := newGroup(t, cgroupRoot, fmt.Sprintf("theirs-%d", i), first)
		sameFiles(t, ours, theirs, updates)
	}
	t.Run("of one version", func(t *testing.T) {
		updates := []string{
			`{"memory":{"swappiness":33,"disableOOMKiller":true}}`,
			`{"memory":{"swappiness":0,"disableOOMKiller":false}}`,
		}
		if peer.IsCgroup2UnifiedMode() {
			updates = []string{
				fill(`{"unified":{"memory.high":"64000000","memory.low":"max","cgroup.max.depth":"3","cpu.weight":"33","pids.max":"7","io.max":"DEV rbps=7000 wiops=50"}}`),
				fill(`{"unified":{"io.max":"DEV rbps=max","cpu.max":"max 50000"}}`),
			}
			if huge := hugeSizes(t); len(huge) > 0 {
				updates[0] = strings.Replace(updates[0], `{`, `{"hugepageLimits":[{"pageSize":"`+huge[0]+`","limit":4194304}],`, 1)
			}
		}
		first := limitsOf(t, updates[0])
		sameFiles(t, newGroup(t, cgroupRoot, "ours", first), newGroup(t, cgroupRoot, "theirs", first), updates)
	})
}

// Controllers that only v1 has, or that are in no hierarchy of this machine,
// are mounted for the test.
func TestSameAsOpencontainersCgroupsElsewhere(t *testing.T) {
	testkit.Requires(t, "root")
	if os.Getenv(privateEnv) == "" {
		// In a cgroup namespace, as a test host has it, they cannot be mounted.
		cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), privateEnv+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	limits := map[string]string{
		"net_cls":  `"network":{"classID":1048577}`,
		"net_prio": `"network":{"priorities":[{"name":"lo","priority":5}]}`,
	}
	root := t.TempDir()
	for name, limit := range limits {
		if !unmounted(t, name) {
			continue // in a hierarchy that the other test sees, or not in this kernel
		}
		dir := filepath.Join(root, name)
		mkdirAll(t, dir)
		mount := func() error { return os.NewSyscallError("mount", unix.Mount("cgroup", dir, "cgroup", 0, name)) }
		if err := mount(); err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) {
			updates := []string{"{" + limit + "}", `{"network":{"classID":0}}`}
			first := limitsOf(t, updates[0])
			sameFiles(t, newGroup(t, root, "ours", first), newGroup(t, root, "theirs", first), updates)
		})
		if err := unix.Rmdir(filepath.Join(dir, fmt.Sprintf("cg-peer-%d", os.Getpid()))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		leave(t, name, mount, func() error { return os.NewSyscallError("unmount", unix.Unmount(dir, 0)) })
	}
}

// leave unmounts a hierarchy until it is gone: it goes, a little later, with
// its last mount, but not if the kernel has yet to free a group of it.
func leave(t *testing.T, name string, mount, unmount func() error) {
	t.Helper()
	for range 10 {
		if err := unmount(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(testkit.Patience(time.Second)); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if unmounted(t, name) {
				return
			}
		}
		if err := mount(); err != nil {
			t.Fatal(err)
		}
	}
	t.Errorf("the hierarchy of %s cannot be got rid of", name)
}

// unmounted says whether the kernel has a controller that is in no hierarchy
// of v1.
func unmounted(t *testing.T, controller string) bool {
	t.Helper()
	return regexp.MustCompile(`(?m)^` + controller + `\t0\t\d+\t1$`).MatchString(mustRead(t, "/proc/cgroups"))
}

// privateEnv marks the process of a test that has a mount namespace of its own.
const privateEnv = "CG_TEST_PRIVATE"

const cgroupRoot = "/sys/fs/cgroup"

// fill puts the number of a disk of this machine into a config.
func fill(config string) string {
	blocks, _ := filepath.Glob("/sys/block/*/dev")
	dev := "7:0"
	if len(blocks) > 0 {
		if text, err := os.ReadFile(blocks[0]); err == nil {
			dev = strings.TrimSpace(string(text))
		}
	}
	major, minor, _ := strings.Cut(dev, ":")
	return strings.NewReplacer("DISK", `"major":`+major+`,"minor":`+minor, "DEV", dev).Replace(config)
}

// hugeSizes are the sizes of huge pages of this machine, as cgroups name them.
func hugeSizes(t *testing.T) []string {
	t.Helper()
	if _, err := os.Stat("/sys/kernel/mm/hugepages"); err != nil {
		return nil
	}
	return peer.HugePageSizes()
}

// sameFiles applies updates to two groups, ours and the library's.
func sameFiles(t *testing.T, ours, theirs *group.Group, updates []string) {
	t.Helper()
	for _, update := range updates {
		r := limitsOf(t, update)
		p, err := resources.New(ours, r)
		if err == nil {
			err = p.Update()
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

func limitsOf(t *testing.T, text string) *specs.LinuxResources {
	t.Helper()
	var r *specs.LinuxResources
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// newGroup makes a group with the controllers that r needs.
func newGroup(t *testing.T, root, name string, r *specs.LinuxResources) *group.Group {
	t.Helper()
	g, err := group.New(root, fmt.Sprintf("/cg-peer-%d/%s", os.Getpid(), name))
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
var figures = regexp.MustCompile(`stat|usage|current|events|pressure|peak|procs|tasks|threads|cpuacct|failcnt|slabinfo|prioidx|controllers`)

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
	m, err := peerManager(g, c)
	if err != nil {
		return err
	}
	return m.Set(c.Resources)
}

// peerManager is the library's view of a group.
func peerManager(g *group.Group, c *peer.Cgroup) (peer.Manager, error) {
	if h := g.Hierarchies[0]; h.Version == 2 {
		return peer2.NewManager(c, g.In(h))
	}
	paths := make(map[string]string)
	for _, h := range g.Hierarchies {
		for _, name := range h.Controllers {
			if h.Version == 1 {
				paths[name] = g.In(h)
			}
		}
	}
	return peer1.NewManager(c, paths)
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
	if m := r.Memory; m != nil {
		to.MemorySwappiness = m.Swappiness
		to.OomKillDisable = m.DisableOOMKiller != nil && *m.DisableOOMKiller
	}
	if b := r.BlockIO; b != nil {
		for _, list := range []struct {
			to   *[]*peer.ThrottleDevice
			from []specs.LinuxThrottleDevice
		}{
			{&to.BlkioThrottleReadBpsDevice, b.ThrottleReadBpsDevice},
			{&to.BlkioThrottleWriteBpsDevice, b.ThrottleWriteBpsDevice},
			{&to.BlkioThrottleReadIOPSDevice, b.ThrottleReadIOPSDevice},
			{&to.BlkioThrottleWriteIOPSDevice, b.ThrottleWriteIOPSDevice},
		} {
			for _, d := range list.from {
				*list.to = append(*list.to, peer.NewThrottleDevice(d.Major, d.Minor, d.Rate))
			}
		}
	}
	for _, l := range r.HugepageLimits {
		to.HugetlbLimit = append(to.HugetlbLimit, &peer.HugepageLimit{Pagesize: l.Pagesize, Limit: l.Limit})
	}
	if n := r.Network; n != nil {
		if n.ClassID != nil {
			to.NetClsClassid = *n.ClassID
		}
		for _, p := range n.Priorities {
			to.NetPrioIfpriomap = append(to.NetPrioIfpriomap, &peer.IfPrioMap{Interface: p.Name, Priority: int64(p.Priority)})
		}
	}
	to.Unified = r.Unified
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
