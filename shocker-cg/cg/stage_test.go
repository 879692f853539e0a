package cg

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestUpCheckDown(t *testing.T) {
	h := newHost(t)
	const in = `{"ociVersion":"1.0.2","x":18446744073709551615,"annotations":{"sh.shocker.id":"ps_42152"}}` + "\n"
	out := h.up(in)
	want := `{"ociVersion":"1.0.2","x":18446744073709551615,"annotations":{"sh.shocker.id":"ps_42152"},"linux":{"resources":` +
		`{"cpu":{"shares":512},"memory":{"limit":512000000},"pids":{"limit":4096}},"cgroupsPath":"` +
		h.CgroupParent + `/ps_42152"}}` + "\n"
	if out != want {
		t.Errorf("up wrote %s; want %s", out, want)
	}
	for _, f := range []struct{ v1, v2, want1, want2 string }{
		{"cpu.shares", "cpu.weight", "512", "59"},
		{"memory.limit_in_bytes", "memory.max", "512000000", "512000000"},
		{"pids.max", "pids.max", "4096", "4096"},
	} {
		if got := h.file("ps_42152", f.v1, f.v2); got != f.want1 && got != f.want2 {
			t.Errorf("%s (%s in v2) is %s; want %s (%s)", f.v1, f.v2, got, f.want1, f.want2)
		}
	}
	for range 2 {
		if got := h.ok(out, "check"); got != out {
			t.Errorf("check wrote %s; want its input", got)
		}
	}
	if got := h.ok("", "list", "-q"); got != "ps_42152\n" {
		t.Errorf("list -q = %q", got)
	}
	for range 2 {
		if got := h.ok(out, "down"); got != out {
			t.Errorf("down wrote %s; want its input", got)
		}
		if left := h.left("ps_42152"); len(left) > 0 {
			t.Fatalf("down left %v", left)
		}
	}
	h.fails(out, "there is no such cgroup", "check")
}

func TestCheckNamesWhatDiffers(t *testing.T) {
	h := newHost(t)
	out := h.up(rec("ps_1", `{}`))
	for _, dir := range h.dirs(h.CgroupParent + "/ps_1") {
		if file := filepath.Join(dir, "pids.max"); isThere(file) {
			mustWrite(t, file, "7")
		}
	}
	h.fails(out, `pids.max is "7", not "4096"`, "check")
}

func TestFlagsWinOverTheRecordAndItOverDefaults(t *testing.T) {
	h := newHost(t)
	t.Setenv("SHOCKER_CPU_SHARE", "1024")
	t.Setenv("SHOCKER_MEM_LIMIT", "100")
	h.up(rec("ps_1", `{"cpu":{"shares":null},"memory":{"limit":50000000},"pids":{"limit":9}}`), "--pids-limit", "11")
	for _, f := range []struct{ v1, v2, want1, want2 string }{
		{"cpu.shares", "cpu.weight", "1024", "100"},                     // the environment's
		{"memory.limit_in_bytes", "memory.max", "49999872", "49999872"}, // the record's, in pages
		{"pids.max", "pids.max", "11", "11"},                            // the flag's
	} {
		if got := h.file("ps_1", f.v1, f.v2); got != f.want1 && got != f.want2 {
			t.Errorf("%s (%s in v2) is %s; want %s (%s)", f.v1, f.v2, got, f.want1, f.want2)
		}
	}
}

func TestFlags(t *testing.T) {
	h := newHost(t)
	for i, test := range []struct{ args, want string }{
		{"--cpus 1.5", `"cpu":{"quota":150000,"period":100000,"shares":512}`},
		{"--cpus 0", `"cpu":{"quota":-1,"period":100000,"shares":512}`},
		{"--cpu-shares 2", `"cpu":{"shares":2}`},
		{"--memory 1024", `"memory":{"limit":1024000000}`},
		{"--memory 64m", `"memory":{"limit":67108864}`},
		{"--memory 65536K", `"memory":{"limit":67108864}`},
		{"--memory 1g", `"memory":{"limit":1073741824}`},
		{"--memory 1.5GiB", `"memory":{"limit":1610612736}`},
		{"-m 8192000b", `"memory":{"limit":8192000}`},
		{"--memory -1", `"memory":{"limit":-1}`},
		{"--pids-limit 0", `"pids":{"limit":-1}`},
		{"--pids-limit -1", `"pids":{"limit":-1}`},
	} {
		id := fmt.Sprintf("ps_%d", i)
		out := h.up(rec(id, "{}"), strings.Fields(test.args)...)
		sorted := strings.NewReplacer(`{"shares":512,"quota":`, `{"quota":`).Replace(out)
		want := strings.Replace(test.want, `,"shares":512`, "", 1)
		if !strings.Contains(sorted, want) {
			t.Errorf("up %s wrote %s; want %s", test.args, out, test.want)
		}
		h.ok(out, "check")
	}
}

func TestInvalidIsRefusedBeforeAnythingIsTouched(t *testing.T) {
	h := newHost(t)
	good := rec("ps_1", "{}")
	for _, test := range []struct{ args, record, want string }{
		{"--memory lots", good, `--memory "lots"`},
		{"--memory -5", good, `--memory "-5"`},
		{"--memory 99999999999g", good, `2^53`},
		{"--cpu-shares 1", good, `--cpu-shares "1"`},
		{"--cpu-shares 262145", good, `262145`},
		{"--cpus -1", good, `--cpus "-1"`},
		{"--cpus NaN", good, `NaN`},
		{"--cpus 0.001", good, `0.001`},
		{"--pids-limit -2", good, `--pids-limit "-2"`},
		{"--pids-limit 5000000", good, `4194304`},
		{"", rec("ps_1", `{"memory":{"limit":-7}}`), "memory.limit: -7"},
		{"", rec("ps_1", `{"memory":{"limit":9,"swap":8}}`), "memory.swap: 8"},
		{"", rec("ps_1", `{"cpu":{"cpus":"one"}}`), `cpu.cpus: "one"`},
		{"", rec("ps_1", `{"cpu":{"shares":"many"}}`), "shares"},
		{"", rec("ps_1", `{"devices":[{"allow":true,"type":"x"}]}`), `type "x"`},
		{"", rec("ps_1", `{"devices":[{"allow":true,"type":"c","access":"rx"}]}`), `access "rx"`},
		{"", rec("ps_1", `{"devices":[{"allow":true,"type":"c","major":1},{"allow":false,"type":"c","major":1,"minor":3}]}`), "wider"},
		{"", rec("ps_1", `{"unified":{"../x.y":"1"}}`), `"../x.y"`},
		{"", rec("ps_1", `{"unified":{"nosuch.max":"1"}}`), "nosuch.max"},
		{"", rec("ps_1", `{"rdma":{"none0":{"hcaHandles":1}}}`), "rdma"},
		{"", strings.Replace(good, `"linux":{`, `"linux":{"cgroupsPath":"/a/../b",`, 1), "/a/../b"},
		{"", strings.Replace(good, `"linux":{`, `"linux":{"cgroupsPath":"/",`, 1), "not a cgroup path"},
		{"", strings.Replace(good, `"linux":{`, `"linux":{"cgroupsPath":"../../x",`, 1), "not a cgroup path"},
		{"", strings.Replace(good, `"linux":{`, `"linux":{"cgroupsPath":"system.slice:shocker:ps_1",`, 1), "systemd"},
	} {
		h.fails(test.record, test.want, append([]string{"up"}, strings.Fields(test.args)...)...)
		for _, dir := range h.dirs(h.root) {
			if isThere(dir) {
				t.Fatalf("up %s of %s made %s", test.args, test.record, dir)
			}
		}
		if entries, _ := os.ReadDir(filepath.Join(h.RunDir("ps_1"), "undo")); len(entries) > 0 {
			t.Fatalf("up %s of %s wrote an undo", test.args, test.record)
		}
	}
	t.Setenv("SHOCKER_MEM_LIMIT", "lots")
	h.fails(good, `SHOCKER_MEM_LIMIT "lots"`, "up")
}

// What the kernel refuses is undone, and named with its file.
func TestRefusedByTheKernel(t *testing.T) {
	h := newHost(t)
	for _, resources := range []string{
		`{"cpu":{"cpus":"4000"}}`, `{"pids":{"limit":90000000}}`, `{"cpu":{"quota":1}}`,
	} {
		h.fails(rec("ps_1", resources), "write \"", "up")
		if left := h.left("ps_1"); len(left) > 0 {
			t.Errorf("%s: %v is left", resources, left)
		}
	}
}

func TestManyRecords(t *testing.T) {
	h := newHost(t)
	var in strings.Builder
	for i := range 20 {
		in.WriteString(rec(fmt.Sprintf("ps_%d", i), "{}"))
	}
	in.WriteString(rec("ps_bad", `{"cpu":{"cpus":"x"}}`))
	in.WriteString(rec("ps_last", "{}"))
	stdout, stderr, status := h.run(in.String(), "up")
	if n := strings.Count(stdout, "\n"); n != 21 || status != 1 || strings.Count(stderr, "\n") != 1 {
		t.Errorf("%d of 21 records went through, status %d, stderr %s", n, status, stderr)
	}
	h.ok(stdout, "check")
	h.ok(stdout, "down")
}

// Twenty commands share parents that the first makes and the last removes.
func TestTwentyAtOnce(t *testing.T) {
	h := newHost(t)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			for range 3 {
				out, stderr, status := h.run(rec(fmt.Sprintf("ps_%d", i), "{}"), "up")
				if status != 0 {
					t.Errorf("up %d: %s", i, stderr)
				}
				if _, stderr, status := h.run(out, "down"); status != 0 {
					t.Errorf("down %d: %s", i, stderr)
				}
			}
		})
	}
	wg.Wait()
}

// Whenever the command is killed, down finds what it had done.
func TestKilledAnywhere(t *testing.T) {
	h := newHost(t)
	in := rec("ps_1", `{"devices":[{"allow":false}]}`)
	begin := time.Now()
	h.ok(in, "up")
	whole := time.Since(begin)
	h.ok(in, "down")
	const runs = 60
	half := 0
	for i := range runs {
		cmd := h.command(in, "up")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-time.After(whole * time.Duration(i) / runs)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed, or done before
		if n := len(h.left("ps_1")); n > 0 || isThere(h.dirs(h.root)[0]) {
			half++
		}
		h.ok(in, "down")
		for _, dir := range h.dirs(h.root) {
			if isThere(dir) {
				t.Fatalf("killed after %d/%d of its time, then down: %s is left", i, runs, dir)
			}
		}
	}
	if half == 0 {
		t.Errorf("none of %d runs was killed between the first effect and the last", runs)
	}
}
