package systemd

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/cgroup"
	"shocker.sh/lib/cgroup/devices"
	"shocker.sh/lib/cgroup/group"
	"shocker.sh/lib/testkit"
	"shocker.sh/lib/undo"
)

func TestSystemd(t *testing.T) {
	underSystemd(t, func(t *testing.T) {
		t.Run("lifecycle", lifecycle)
		t.Run("limits", limitsAreTold)
		t.Run("reload", reload)
		t.Run("failures", failures)
		t.Run("without a bus", func(t *testing.T) {
			t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere")
			lifecycle(t)
		})
	})
}

func TestNoSystemd(t *testing.T) {
	testkit.Run(t, testkit.Options{NoStore: true}, func(t *testing.T, _ *testkit.Host) {
		// The machine's own, if it has one, is hidden.
		if err := unix.Mount("none", "/run", "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		for name, err := range map[string]error{
			"Running": Running(),
			"Start":   Manager{}.Start(t.Context(), cgroup.Unit{Slice: "a.slice", Name: "x-y.scope"}, 1),
			"Set": Manager{}.Set(t.Context(), cgroup.Unit{Slice: "a.slice", Name: "x-y.scope"}, 2,
				&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: new(int64(3))}}),
			"Stop": Manager{}.Stop(t.Context(), cgroup.Unit{Slice: "a.slice", Name: "x-y.scope"}),
		} {
			if !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), "--systemd-cgroup") {
				t.Errorf("%s without systemd: %v", name, err)
			}
		}
	})
}

const root = "/sys/fs/cgroup"

// container is a process in a group of systemd.
type container struct {
	*cgroup.Cgroup
	cmd *exec.Cmd
	log *undo.Log
}

func create(t *testing.T, path, resources string, annotations map[string]string) (*container, error) {
	t.Helper()
	cg, err := cgroup.New(cgroup.Config{Root: root, CgroupsPath: path, ID: "ps_1", Annotations: annotations, Manager: Manager{}})
	if err != nil {
		return nil, err
	}
	c := &container{Cgroup: cg, log: undo.Open(t.TempDir())}
	if err := c.Make(t.Context(), c.log, parse(t, resources)); err != nil {
		return c, err
	}
	c.cmd = exec.Command("sleep", "1000")
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
		if err := errors.Join(c.Stop(t.Context()), c.log.Replay("")); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	return c, errors.Join(c.Join(c.cmd.Process.Pid, group.Joining{}), c.Release())
}

func mustCreate(t *testing.T, path, resources string, annotations map[string]string) *container {
	t.Helper()
	c, err := create(t, path, resources, annotations)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func parse(t *testing.T, text string) *specs.LinuxResources {
	t.Helper()
	var r *specs.LinuxResources
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// show asks systemctl for the properties of a unit.
func show(t *testing.T, unit string) map[string]string {
	t.Helper()
	out, err := exec.Command("systemctl", "show", unit).CombinedOutput()
	if err != nil {
		t.Fatalf("systemctl show %s: %v: %s", unit, err, out)
	}
	all := make(map[string]string)
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		all[key] = value
	}
	return all
}

// told compares properties of a unit with what they should be.
func told(t *testing.T, when, unit string, want map[string]string) {
	t.Helper()
	all := show(t, unit)
	for property, want := range want {
		if got := all[property]; got != want {
			t.Errorf("%s %s of %s is %q; want %q", when, property, unit, got, want)
		}
	}
}

// file reads the first of these files that the group has.
func (c *container) file(t *testing.T, names ...string) string {
	t.Helper()
	for _, dir := range c.Dirs() {
		for _, name := range names {
			if text, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
				return strings.TrimSpace(string(text))
			}
		}
	}
	t.Fatalf("the group has none of %v", names)
	return ""
}

func v2(c *container) bool { return c.Hierarchies[0].Version == 2 }

func lifecycle(t *testing.T) {
	const unit = "shocker-ps_1.scope"
	c := mustCreate(t, "", `{"pids":{"limit":7}}`, map[string]string{
		"org.systemd.property.TimeoutStopSec": "7", "org.systemd.property.KillSignal": "int32 10", "other": "x",
	})
	if c.Path != "/system.slice/"+unit {
		t.Errorf("the group is %s", c.Path)
	}
	told(t, "at first", unit, map[string]string{
		"ActiveState": "active", "Slice": "system.slice", "Delegate": "yes", "TasksMax": "7", "KillSignal": "10",
		"TimeoutStopUSec": "7s", "ControlGroup": c.Path,
	})
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", c.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), c.Path+"\n"); n != len(c.Hierarchies) {
		t.Errorf("it is in %d of %d hierarchies:\n%s", n, len(c.Hierarchies), text)
	}
	s, err := c.Save()
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var saved cgroup.Saved
	if err := json.Unmarshal(data, &saved); err != nil {
		t.Fatal(err)
	}
	later, err := cgroup.Load(saved, func() cgroup.Manager { return Manager{} })
	if err != nil {
		t.Fatal(err)
	}
	if err := later.Update(t.Context(), parse(t, `{"pids":{"limit":9}}`)); err != nil {
		t.Error(err)
	}
	told(t, "after Update", unit, map[string]string{"TasksMax": "9"})
	if is := c.file(t, "pids.max"); is != "9" {
		t.Errorf("after Update the limit is %s", is)
	}
	if _, err := create(t, "", `{}`, nil); err == nil {
		t.Error("a second container of the same name was made")
	}
	if err := later.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := later.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		if err := c.log.Replay(""); err != nil {
			t.Error(err)
		}
	}
	if missing, err := c.Missing(); err != nil || len(missing) != len(c.Hierarchies) {
		t.Errorf("missing are %v of %v: %v", missing, c.Dirs(), err)
	}
	told(t, "after Stop", unit, map[string]string{"LoadState": "not-found"})

	// Without Stop, as after a crash: the undo alone removes all, and systemd
	// forgets the unit by itself.
	c = mustCreate(t, "machine-a.slice:lib:x1", `{}`, nil)
	if want := "/machine.slice/machine-a.slice/lib-x1.scope"; c.Path != want {
		t.Errorf("the group is %s; want %s", c.Path, want)
	}
	if err := c.log.Replay(""); err != nil {
		t.Error(err)
	}
	testkit.Eventually(t, 10*time.Second, func() error {
		if state := show(t, "lib-x1.scope")["LoadState"]; state != "not-found" {
			return fmt.Errorf("the unit is %s", state)
		}
		return nil
	})
}

func limitsAreTold(t *testing.T) {
	c := mustCreate(t, "system.slice:shocker:limits", `{"cpu":{"shares":512,"quota":12345,"period":50000,"cpus":"0","mems":"0"},`+
		`"memory":{"limit":90000000,"swap":100000000,"reservation":50000000},"pids":{"limit":0}}`, nil)
	const unit = "shocker-limits.scope"
	want := map[string]string{
		"CPUQuotaPerSecUSec": "250ms", "CPUQuotaPeriodUSec": "50ms", "AllowedCPUs": "0", "AllowedMemoryNodes": "0", "TasksMax": "1",
		"MemoryAccounting": "yes", "CPUAccounting": "yes", "IOAccounting": "yes",
	}
	files := [][]string{{"pids.max"}, {"1"}, {"cpu.max", "cpu.cfs_quota_us"}, {"12345 50000", "12345"}, {"cpuset.cpus"}, {"0"}}
	if v2(c) {
		want["CPUWeight"], want["MemoryMax"], want["MemorySwapMax"], want["MemoryLow"] = "59", "90000000", "10000000", "50000000"
		files = append(files, []string{"memory.max"}, []string{"89997312"}, []string{"cpu.weight"}, []string{"59"})
	} else {
		want["CPUShares"], want["MemoryLimit"] = "512", "90000000"
		files = append(files, []string{"memory.limit_in_bytes"}, []string{"89997312"}, []string{"cpu.shares"}, []string{"512"})
	}
	check := func(when string) {
		t.Helper()
		told(t, when, unit, want)
		for i := 0; i < len(files); i += 2 {
			if got := c.file(t, files[i]...); got != files[i+1][0] && got != files[i+1][len(files[i+1])-1] {
				t.Errorf("%s %v is %q; want %q", when, files[i], got, files[i+1])
			}
		}
	}
	check("at first")
	// Zeros leave alone, and what is refused changes nothing, here and there.
	if err := c.Update(t.Context(), parse(t, `{"cpu":{"shares":0,"quota":0,"period":0},"memory":{"limit":0,"swap":0},"blockIO":{"weight":0}}`)); err != nil {
		t.Error(err)
	}
	check("after zeros")
	if err := c.Update(t.Context(), parse(t, `{"cpu":{"shares":700},"pids":{"limit":90000000}}`)); err == nil {
		t.Error("a limit beyond all was taken")
	}
	check("after a refusal")
	// One of the two that systemd has as one number.
	for i, step := range []struct{ update, perSecond, quota, period string }{
		{`{"cpu":{"period":40000}}`, "310ms", "12345", "40000"},
		{`{"cpu":{"quota":-1}}`, "infinity", "-1", "40000"},
		{`{"cpu":{"quota":8000}}`, "200ms", "8000", "40000"},
	} {
		if err := c.Update(t.Context(), parse(t, step.update)); err != nil {
			t.Error(err)
		}
		want["CPUQuotaPerSecUSec"], want["CPUQuotaPeriodUSec"] = step.perSecond, "40ms"
		files[3] = []string{strings.Replace(step.quota, "-1", "max", 1) + " " + step.period, step.quota}
		check(fmt.Sprintf("after quota or period %d", i))
	}
	if !v2(c) {
		return
	}
	update := `{"unified":{"memory.high":"70000000","cpu.max":"max 20000","pids.max":"20"},"cpu":{"idle":1}}`
	if err := c.Update(t.Context(), parse(t, update)); err != nil {
		t.Error(err)
	}
	want = map[string]string{"MemoryHigh": "70000000", "CPUQuotaPerSecUSec": "infinity", "CPUQuotaPeriodUSec": "20ms", "TasksMax": "20", "CPUWeight": "idle"}
	files = [][]string{{"memory.high"}, {"69996544"}, {"cpu.max"}, {"max 20000"}, {"pids.max"}, {"20"}, {"cpu.idle"}, {"1"}}
	check("after unified")
}

// What a container may do with devices survives a daemon-reload.
func reload(t *testing.T) {
	rules, err := json.Marshal(append([]specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}, devices.Default()...))
	if err != nil {
		t.Fatal(err)
	}
	c := mustCreate(t, "system.slice:shocker:reload", `{"devices":`+string(rules)+`}`, nil)
	dir := t.TempDir()
	nodes := map[string]bool{filepath.Join(dir, "null"): true, filepath.Join(dir, "kmsg"): false}
	for path, minor := range map[string]uint32{filepath.Join(dir, "null"): 3, filepath.Join(dir, "kmsg"): 11} {
		if err := unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, minor))); err != nil {
			t.Fatal(err)
		}
	}
	check := func(when string, want map[string]bool) {
		t.Helper()
		for path, want := range want {
			// It joins the group, then opens the device.
			script := `for d; do echo $$ >$d/cgroup.procs || exit 3; done; exec <"` + path + `"`
			out, err := exec.Command("sh", append([]string{"-c", script, "sh"}, c.Dirs()...)...).CombinedOutput()
			if (err == nil) != want || err != nil && !strings.Contains(string(out), "not permitted") {
				t.Errorf("%s: %s can be opened: %v, %s; want %v", when, path, err, out, want)
			}
		}
	}
	check("at first", nodes)
	told(t, "at first", "shocker-reload.scope", map[string]string{"NeedDaemonReload": "no"})
	systemctl := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("systemctl", args...).CombinedOutput(); err != nil {
			t.Fatalf("systemctl %v: %v: %s", args, err, out)
		}
	}
	systemctl("daemon-reload")
	// Something that makes systemd apply all of it anew.
	systemctl("set-property", "--runtime", "shocker-reload.scope", "TasksMax=50")
	check("after daemon-reload", nodes)
	if err := c.Update(t.Context(), parse(t, `{"devices":[{"allow":false},{"allow":true,"type":"c","major":1}]}`)); err != nil {
		t.Fatal(err)
	}
	if frozen, err := c.Frozen(); frozen || err != nil {
		t.Errorf("after Update frozen is %v, %v", frozen, err)
	}
	for path := range nodes {
		nodes[path] = true
	}
	systemctl("daemon-reload")
	check("after an update", nodes)
	if err := c.Update(t.Context(), parse(t, `{"pids":{"limit":60}}`)); err != nil {
		t.Fatal(err)
	}
	check("after an update of something else", nodes)
}

func failures(t *testing.T) {
	for _, test := range []struct{ path, resources, annotation, want string }{
		{"/ps_1", "{}", "", "slice:prefix:name"},
		{"a:b", "{}", "", "slice:prefix:name"},
		{"a.slice:b:c.slice", "{}", "", "scope"},
		{"a:b:c", "{}", "", `"a" is not the name of a slice`},
		{"a--b.slice:b:c", "{}", "", "not the name of a slice"},
		{":b:c/d", "{}", "", "name of a unit"},
		{":b:bad", `{"pids":{"limit":90000000}}`, "", "pids.max"},
		{":b:bad", `{"memory":{"limit":-7}}`, "", "memory.limit"},
		{":b:bad", `{}`, "not gvariant", "property KillMode"},
		{":b:bad", `{}`, "'nonsense'", "start b-bad.scope"},
	} {
		annotations := map[string]string{}
		if test.annotation != "" {
			annotations["org.systemd.property.KillMode"] = test.annotation
		}
		c, err := create(t, test.path, test.resources, annotations)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s with %s and %q: %v; want %q", test.path, test.resources, test.annotation, err, test.want)
		}
		if c == nil || c.log == nil {
			continue
		}
		if missing, err := c.Missing(); err != nil || len(missing) != len(c.Hierarchies) {
			t.Errorf("after the failure of %s missing are %v of %v: %v", test.path, missing, c.Dirs(), err)
		}
		if entries, err := c.log.Entries(); err != nil || len(entries) > 0 {
			t.Errorf("after the failure of %s the undo is %v, %v", test.path, entries, err)
		}
	}
	// The first that came is in nobody's way any more, though it failed.
	c := mustCreate(t, ":b:bad", `{}`, nil)
	if err := syscall.Kill(c.cmd.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}
