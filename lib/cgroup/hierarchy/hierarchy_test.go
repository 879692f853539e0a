package hierarchy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	const mountinfo = `23 1 254:1 / / rw - ext4 /dev/vda rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/systemd rw shared:10 master:2 - cgroup systemd rw,xattr,release_agent=/lib/agent,name=systemd
34 31 0:29 / /sys/fs/cgroup/again rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:31 / /elsewhere/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:31 /docker/1 /sys/fs/cgroup/with\040blank rw,relatime - cgroup cgroup rw,memory
`
	want := []Hierarchy{
		{Mount: "/sys/fs/cgroup/cpu,cpuacct", Version: 1, Controllers: []string{"cpu", "cpuacct"}, Root: "/"},
		{Mount: "/sys/fs/cgroup/systemd", Version: 1, Controllers: []string{"name=systemd"}, Root: "/"},
		{Mount: "/sys/fs/cgroup/with blank", Version: 1, Controllers: []string{"memory"}, Root: "/docker/1"},
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

func TestBelowOwn(t *testing.T) {
	found, err := Find("/sys/fs/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	all, err := BelowOwn(found)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range all {
		dir := filepath.Join(h.Mount, h.Base)
		if len(all) == 1 && h.Version == 2 { // that of a child
			own, err := Of(os.Getpid(), h)
			if err != nil || filepath.Dir(own) != h.Base {
				t.Errorf("Of = %q, %v; want a child of %s", own, err, h.Base)
			}
			dir = filepath.Join(h.Mount, own)
		}
		procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil || !strings.Contains("\n"+string(procs), fmt.Sprintf("\n%d\n", os.Getpid())) {
			t.Errorf("this process is not in %s: %v", dir, err)
		}
	}
}

func TestOfWithoutANamespace(t *testing.T) {
	found, err := Find("/sys/fs/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	found[0].Root = "/docker/1"
	if own, err := Of(os.Getpid(), found[0]); !errors.Is(err, ErrOutside) {
		t.Errorf("Of, with the mount beginning elsewhere = %q, %v; want ErrOutside", own, err)
	}
}
