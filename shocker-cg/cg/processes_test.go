package cg

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/testkit"
)

// in runs a program in a container's group to its end.
func (h *host) in(id string, args ...string) (output string, status int) {
	h.t.Helper()
	out, talk, status := h.run("", append([]string{"exec", id, "--"}, args...)...)
	return out + talk, status
}

func (h *host) stats(id string) (s Stats) {
	h.t.Helper()
	if err := json.Unmarshal([]byte(h.ok("", "read", id)), &s); err != nil {
		h.t.Fatal(err)
	}
	return s
}

func TestExec(t *testing.T) {
	h := newHost(t)
	h.up(rec("ps_1", "{}"))
	out, status := h.in("ps_1", "cat", "/proc/self/cgroup")
	if status != 0 {
		t.Fatalf("status %d: %s", status, out)
	}
	if want, got := len(h.dirs("/")), strings.Count(out, ":"+h.CgroupParent+"/ps_1\n"); got != want {
		t.Errorf("it is in %d of %d hierarchies: %s", got, want, out)
	}
	notExecutable := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(notExecutable, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		id   string
		args []string
		want int
	}{
		{"ps_1", []string{"sh", "-c", "exit 7"}, 7},
		{"ps_1", []string{"nosuchprogram"}, 127},
		{"ps_1", []string{"/nosuch/program"}, 127},
		{"ps_1", []string{notExecutable}, 126},
		{"ps_2", []string{"true"}, 125},
		{"../x", []string{"true"}, 125},
		{"ps_1", nil, 2},
	} {
		if out, status := h.in(test.id, test.args...); status != test.want {
			t.Errorf("exec %s %v: status %d, %s; want %d", test.id, test.args, status, out, test.want)
		}
	}
}

func TestPidsLimit(t *testing.T) {
	h := newHost(t)
	h.up(rec("ps_1", "{}"), "--pids-limit", "3")
	const forks = "for i in 1 2 3 4 5; do sleep 1000 >&- 2>&- & done"
	out, status := h.in("ps_1", "sh", "-c", forks)
	if status == 0 || !strings.Contains(out, "fork") {
		t.Errorf("five forks under a limit of 3: status %d, %q", status, out)
	}
	if s := h.stats("ps_1"); s.Pids.Current != 2 || s.Pids.Limit == nil || *s.Pids.Limit != 3 || !s.Populated {
		t.Errorf("read: %+v, populated %v; want the 2 that were made of 3", s.Pids, s.Populated)
	}
}

// The command that chains has more threads than the limit, and its runtime must
// not ask for another one, whatever else it would like to run at that moment.
func TestExecUnderTheSmallestPidsLimit(t *testing.T) {
	h := newHost(t)
	h.up(rec("ps_1", "{}"), "--pids-limit", "1")
	for i := range 20 {
		var out bytes.Buffer
		cmd := h.command("", "exec", "ps_1", "--", "/bin/echo", "in")
		if i%2 == 1 {
			cmd.Env = append(cmd.Env, "CG_TEST_AS=restless shocker-cg", "GOMAXPROCS=100")
		}
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil || out.String() != "in\n" {
			t.Fatalf("exec %d: %v, %.300q", i, err, out.String())
		}
	}
}

func TestMemoryLimit(t *testing.T) {
	h := newHost(t)
	h.up(rec("ps_1", `{"memory":{"limit":64000000,"swap":64000000}}`))
	cmd, out := h.enter("ps_1", "CG_TEST_AS=eater", self(t))
	said, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	if cmd.Wait(); cmd.ProcessState.Sys().(interface{ Signal() unix.Signal }).Signal() != unix.SIGKILL {
		t.Errorf("200 MB under a limit of 64: %s, %q; want killed", cmd.ProcessState, said)
	}
	s := h.stats("ps_1")
	if s.Memory.Killed != 1 || s.Memory.Limit == nil || *s.Memory.Limit != 64000000 || s.CPU.Usage == 0 {
		t.Errorf("read: %+v", s.Memory)
	}

	h.up(rec("ps_2", "{}"), "--memory", "400")
	cmd, out = h.enter("ps_2", "CG_TEST_AS=eater", self(t))
	said, _ = io.ReadAll(out)
	if err := cmd.Wait(); err != nil {
		t.Errorf("200 MB under a limit of 400: %v, %q", err, said)
	}
}

// A limit below what is in use is refused when the record asks for that.
func TestCheckBeforeUpdate(t *testing.T) {
	h := newHost(t)
	path := h.CgroupParent + "/ps_1"
	h.up(rec("ps_1", "{}"))
	_, out := h.enter("ps_1", "", "sh", "-c", "x=$(head -c 20000000 /dev/zero | tr '\\0' x); echo has; sleep 1000; true")
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	var r *specs.LinuxResources
	if err := json.Unmarshal([]byte(`{"memory":{"limit":4096000,"checkBeforeUpdate":true}}`), &r); err != nil {
		t.Fatal(err)
	}
	g, err := At(h.Host, path)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Update(r); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("Update: %v", err)
	}
	if populated, err := g.Populated(); !populated || err != nil {
		t.Errorf("Populated = %v, %v: the program is gone", populated, err)
	}
	r = &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0"}, Pids: &specs.LinuxPids{Limit: new(int64(9))}}
	if err := g.Update(r); err != nil { // cpuset was not handed down on v2 so far
		t.Fatal(err)
	}
	for _, f := range []struct{ name, want string }{{"pids.max", "9"}, {"cpuset.cpus", "0"}} {
		if got := h.file("ps_1", f.name, f.name); got != f.want {
			t.Errorf("after Update %s is %s; want %s", f.name, got, f.want)
		}
	}
}

// Of a quota and a period the one that is not given stays as it is.
func TestQuotaOrPeriod(t *testing.T) {
	h := newHost(t)
	h.up(rec("ps_1", `{"cpu":{"quota":30000,"period":60000}}`))
	g, err := At(h.Host, h.CgroupParent+"/ps_1")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ update, quota, period string }{
		{`{"cpu":{"quota":20000}}`, "20000", "60000"},
		{`{"cpu":{"period":50000}}`, "20000", "50000"},
		{`{"cpu":{"quota":0,"period":40000}}`, "20000", "40000"},
		{`{"cpu":{"quota":-1}}`, "-1", "40000"},
		{`{"cpu":{"period":70000}}`, "-1", "70000"},
	} {
		if err := g.Update(limitsOf(t, test.update)); err != nil {
			t.Fatal(err)
		}
		got := h.file("ps_1", "cpu.cfs_quota_us", "cpu.max")
		if quota, period, v2 := strings.Cut(got, " "); !v2 {
			got += " " + h.file("ps_1", "cpu.cfs_period_us", "")
		} else if quota == "max" {
			got = "-1 " + period
		}
		if want := test.quota + " " + test.period; got != want {
			t.Errorf("after %s quota and period are %s; want %s", test.update, got, want)
		}
	}
}

// An update that the kernel refuses in part changes nothing.
func TestFailedUpdate(t *testing.T) {
	h := newHost(t)
	h.up(rec("ps_1", fill(`{"cpu":{"shares":300,"quota":30000},"memory":{"limit":80000000,"swap":90000000},"pids":{"limit":7},`+
		`"blockIO":{"throttleReadBpsDevice":[{DISK,"rate":4096}]},`+
		`"devices":[{"allow":false},{"allow":true,"type":"c","major":1,"minor":3}]}`)))
	g, err := At(h.Host, h.CgroupParent+"/ps_1")
	if err != nil {
		t.Fatal(err)
	}
	before := settings(t, g)
	for _, update := range []string{
		fill(`{"cpu":{"shares":500,"quota":40000,"period":50000,"cpus":"0","mems":"0"},"memory":{"limit":70000000,"swap":95000000,` +
			`"reservation":1000000},"devices":[{"allow":true}],"blockIO":{"throttleReadBpsDevice":[{DISK,"rate":8192}],` +
			`"throttleWriteBpsDevice":[{DISK,"rate":8192}]},"pids":{"limit":90000000}}`),
		`{"cpu":{"quota":-1},"pids":{"limit":9},"blockIO":{"throttleReadBpsDevice":[{"major":4095,"minor":9,"rate":8192}]}}`,
		`{"pids":{"limit":9},"hugepageLimits":[{"pageSize":"3KB","limit":1}]}`,
	} {
		if err := g.Update(limitsOf(t, update)); err == nil {
			t.Errorf("Update by %s succeeded", update)
		}
		for file, have := range settings(t, g) {
			if before[file] != have && before[file] != "" {
				t.Errorf("after the failed update by %s %s is %q; was %q", update, file, have, before[file])
			}
		}
	}
}

// settings are all files of a group that do not change by themselves.
func settings(t *testing.T, g Group) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, dir := range g.Dirs() {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if data, err := os.ReadFile(filepath.Join(dir, e.Name())); err == nil && !figures.MatchString(e.Name()) {
				all[filepath.Join(dir, e.Name())] = string(data)
			}
		}
	}
	return all
}

func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// silent says whether a program that writes without end has stopped: what it
// had written before fits into the pipe. speaks waits until it has written.
func silent(t *testing.T, r *os.File) bool { return read(t, r, 200*time.Millisecond) }

func speaks(t *testing.T, r *os.File) bool { return !read(t, r, 20*time.Second) }

// read reads more than a pipe holds, and says whether it had to wait for too
// long.
func read(t *testing.T, r *os.File, limit time.Duration) (late bool) {
	t.Helper()
	const more = 1 << 20
	buf := make([]byte, 1<<16)
	for n := 0; n < more; {
		if err := r.SetReadDeadline(time.Now().Add(testkit.Patience(limit))); err != nil {
			t.Fatal(err)
		}
		m, err := r.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return true
		}
		if err != nil {
			t.Fatal(err)
		}
		n += m
	}
	return false
}

func TestFreezeThawKill(t *testing.T) {
	h := newHost(t)
	rec := h.up(rec("ps_1", "{}"))
	cmd, out := h.enter("ps_1", "", "sh", "-c", "sleep 1000 & exec yes")
	if !speaks(t, out) {
		t.Fatal("the program says nothing")
	}
	for range 2 {
		h.ok("", "freeze", "ps_1")
	}
	if !silent(t, out) || !h.stats("ps_1").Frozen {
		t.Error("the program goes on after freeze")
	}
	h.fails("", "frozen", "exec", "ps_1", "true")
	h.ok("", "thaw", "ps_1")
	if !speaks(t, out) || h.stats("ps_1").Frozen {
		t.Error("the program does not go on after thaw")
	}
	h.ok("", "freeze", "ps_1")
	h.ok("", "kill", "ps_1")
	if err := cmd.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("the program ended by %v; want killed", err)
	}
	if h.stats("ps_1").Populated {
		t.Error("something lives on after kill")
	}
	h.ok("", "kill", "ps_1") // of an empty group
	h.ok(rec, "down")
	h.fails("", "there is no such cgroup", "freeze", "ps_1")
	h.fails("", "there is no such cgroup", "read", "ps_1")
}

// down kills what runs, frozen or not, and removes what was made below.
func TestDownOfALiveGroup(t *testing.T) {
	for _, frozen := range []bool{false, true} {
		h := newHost(t)
		out := h.up(rec("ps_1", "{}"))
		cmd, r := h.enter("ps_1", "", "sh", "-c", "sleep 1000 & echo up; wait")
		if _, err := bufio.NewReader(r).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		for _, dir := range h.dirs(h.CgroupParent + "/ps_1/a/b") {
			mkdirAll(t, dir)
		}
		if frozen {
			h.ok("", "freeze", "ps_1")
		}
		h.ok(out, "down")
		if err := cmd.Wait(); err == nil {
			t.Error("the program ended by itself")
		}
		if left := h.left("ps_1"); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
}

// denyAll and a few devices, as Docker's default list begins.
const someDevices = `[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":5,"access":"rwm"},` +
	`{"allow":true,"type":"c","major":1,"minor":3,"access":"w"},{"allow":true,"type":"c","access":"m"}]`

func TestDevices(t *testing.T) {
	h := newHost(t)
	dir := t.TempDir()
	node := func(name string, minor uint32) string {
		path := filepath.Join(dir, name)
		if err := unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, minor))); err != nil {
			t.Fatal(err)
		}
		return path
	}
	zero, null, random := node("zero", 5), node("null", 3), node("random", 8)
	if f, err := os.Open(zero); errors.Is(err, os.ErrPermission) {
		t.Skip("the temporary directory lies on a file system without devices")
	} else if err == nil {
		f.Close()
	}
	allowed := func(what string) bool {
		out, status := h.in("ps_1", "sh", "-c", what)
		if status != 0 && !strings.Contains(out, "not permitted") {
			t.Fatalf("%s: %s", what, out)
		}
		return status == 0
	}
	expect := func(when string, want map[string]bool) {
		t.Helper()
		for what, want := range want {
			if got := allowed(what); got != want {
				t.Errorf("%s: %q allowed: %v; want %v", when, what, got, want)
			}
		}
	}
	made := filepath.Join(dir, "made")
	out := h.up(rec("ps_1", `{"devices":`+someDevices+`}`))
	expect("from none", map[string]bool{
		"exec <" + zero:             true,
		"exec >" + zero:             true,
		"exec >" + null:             true,
		"exec <" + null:             false,
		"exec <>" + null:            false, // read and write: all that is wanted must be allowed
		"exec <" + random:           false,
		"mknod " + made + "c c 1 8": true,
		"mknod " + made + "b b 7 0": false,
	})
	h.ok(out, "check")

	// Other rules in place of the first.
	out = strings.Replace(out, someDevices, `[{"allow":false},{"allow":true,"type":"c","major":1,"minor":8,"access":"r"}]`, 1)
	h.fails(out, "device rules", "check")
	h.ok(out, "up")
	h.ok(out, "check")
	expect("changed", map[string]bool{
		"exec <" + zero:   false,
		"exec >" + null:   false,
		"exec <" + random: true,
		"exec >" + random: false,
	})

	// From everything: an exception takes all access that has a part in it.
	out = h.up(rec("ps_2", `{"devices":[{"allow":true},{"allow":false,"type":"c","major":1,"minor":8,"access":"w"}]}`))
	h.ok(out, "check")
	for what, want := range map[string]int{"exec <" + random: 0, "exec >" + random: 1, "exec <>" + random: 1, "exec <>" + null: 0} {
		if _, status := h.in("ps_2", "sh", "-c", what); (status != 0) != (want != 0) {
			t.Errorf("from everything: %q: status %d", what, status)
		}
	}
}

func TestListAndRead(t *testing.T) {
	h := newHost(t)
	h.up(rec("ps_2", "{}"))
	h.up(rec("ps_1", "{}"))
	h.foreign(h.CgroupParent + "/not-ours")
	_, r := h.enter("ps_2", "", "sh", "-c", "sleep 1000 & echo up; wait")
	if _, err := bufio.NewReader(r).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(h.ok("", "list"), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[0], "ps_1\t0\t") || !strings.HasPrefix(lines[1], "ps_2\t2\t") {
		t.Errorf("list: %q", lines)
	}
	var first struct {
		ID   string
		Path string
		Pids struct{ Current int }
	}
	if err := json.NewDecoder(strings.NewReader(h.ok("", "list", "--json"))).Decode(&first); err != nil || first.ID != "ps_1" ||
		first.Path != h.CgroupParent+"/ps_1" {
		t.Errorf("list --json: %+v, %v", first, err)
	}
	s := h.stats("ps_2")
	if s.Pids.Current != 2 || *s.Pids.Limit != 4096 || *s.Memory.Limit != 512000000 || s.Memory.Usage == 0 || s.CPU.Usage == 0 {
		t.Errorf("read: %+v", s)
	}
}

// A container's group is found where its record in the store says.
func TestGroupNamedByTheStore(t *testing.T) {
	h := newHost(t)
	path := h.root + "/elsewhere"
	out := h.up(strings.Replace(rec("ps_1", "{}"), `"linux":{`, `"linux":{"cgroupsPath":"`+path+`",`, 1))
	h.fails("", "there is no such cgroup", "read", "ps_1")
	mkdirAll(t, filepath.Join(h.Store, "containers", "ps_1"))
	if err := os.WriteFile(filepath.Join(h.Store, "containers", "ps_1", "config.json"), []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
	if s := h.stats("ps_1"); s.Path != path {
		t.Errorf("read found %s; want %s", s.Path, path)
	}
}

// The functions for other programs.
func TestGroup(t *testing.T) {
	h := newHost(t)
	h.up(rec("ps_1", "{}"))
	g, err := Named(h.Host, "ps_1")
	if err != nil {
		t.Fatal(err)
	}
	if populated, err := g.Populated(); populated || err != nil {
		t.Errorf("Populated = %v, %v; want an empty group", populated, err)
	}
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	if err := g.AttachThread(pid); err != nil {
		t.Error(err)
	}
	if err := g.Attach(pid); err != nil {
		t.Error(err)
	}
	if pids, err := g.Procs(); err != nil || fmt.Sprint(pids) != fmt.Sprint([]int{pid}) {
		t.Errorf("Procs = %v, %v; want %d", pids, err, pid)
	}
	if err := g.Freeze(t.Context()); err != nil {
		t.Error(err)
	}
	if err := g.Attach(os.Getpid()); !errors.Is(err, ErrFrozen) {
		t.Errorf("Attach to a frozen group: %v", err)
	}
	if err := g.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("it ended by itself")
	}
	none, err := At(h.Host, h.CgroupParent+"/none")
	if err != nil {
		t.Fatal(err)
	}
	if err := none.Attach(os.Getpid()); !errors.Is(err, ErrGone) {
		t.Errorf("Attach to no group: %v", err)
	}
	if populated, err := none.Populated(); populated || err != nil {
		t.Errorf("Populated of no group: %v, %v", populated, err)
	}
	if err := none.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	if err := none.Freeze(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Freeze of no group: %v", err)
	}
}
