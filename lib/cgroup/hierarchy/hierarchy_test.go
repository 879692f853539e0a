package hierarchy

import (
	"reflect"
	"testing"
)

func TestParse(t *testing.T) {
	const mountinfo = `23 1 254:1 / / rw - ext4 /dev/vda rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/systemd rw shared:10 master:2 - cgroup systemd rw,xattr,release_agent=/lib/agent,name=systemd
34 31 0:29 / /sys/fs/cgroup/again rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:31 / /elsewhere/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:31 / /sys/fs/cgroup/with\040blank rw,relatime - cgroup cgroup rw,memory
`
	want := []Hierarchy{
		{"/sys/fs/cgroup/cpu,cpuacct", 1, []string{"cpu", "cpuacct"}},
		{"/sys/fs/cgroup/systemd", 1, []string{"name=systemd"}},
		{"/sys/fs/cgroup/with blank", 1, []string{"memory"}},
	}
	got, err := parse(mountinfo, "/sys/fs/cgroup")
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("parse = %v, %v; want %v", got, err, want)
	}
	if _, err := parse("a b - cgroup\n", "/"); err == nil {
		t.Error("parse of a cut line succeeded")
	}
}

func TestFindOnThisMachine(t *testing.T) {
	found, err := Find("/sys/fs/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, h := range found {
		for _, c := range h.Controllers {
			if seen[c] {
				t.Errorf("controller %s is in two hierarchies", c)
			}
			seen[c] = true
		}
	}
	for _, c := range []string{"cpu", "memory", "pids"} {
		if !seen[c] {
			t.Errorf("no hierarchy has controller %s", c)
		}
	}
}
