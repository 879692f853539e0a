package e2e

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"shocker.sh/lib/testkit"
)

// push puts a directory into the host's registry as an image of one layer,
// with what the given umoci config flags say.
func push(t *testing.T, h *testkit.Host, dir, name string, config ...string) {
	t.Helper()
	testkit.Requires(t, "umoci", "skopeo")
	registry := h.Registry(t)
	ok(t, h.Sh(t, `
		umoci init --layout layout
		umoci new --image layout:x
		umoci unpack --image layout:x bundle >/dev/null 2>&1
		cp -a `+dir+`/. bundle/rootfs/
		umoci repack --image layout:x bundle >/dev/null 2>&1
		umoci config --image layout:x `+strings.Join(config, " ")+`
		skopeo copy -q --dest-tls-verify=false oci:layout:x docker://`+registry+`/`+name+`
		rm -rf layout bundle`))
}

// TestSession is the README's session: a real Debian out of a real registry,
// real packages through NAT.
func TestSession(t *testing.T) {
	if testing.Short() {
		t.Skip("it installs packages from the network")
	}
	testkit.Run(t, testkit.Options{Outside: true}, func(t *testing.T, h *testkit.Host) {
		t.Chdir(h.Dir)
		push(t, h, h.Debian(t), "debian:12", "--config.cmd", "bash")
		if err := os.Setenv("SHOCKER_REGISTRY", h.Registry(t)); err != nil {
			t.Fatal(err)
		}
		before := h.Snapshot(t)

		out := h.Must(t, "pull", "debian", "12")
		image := strings.TrimSpace(strings.TrimPrefix(out, "Created: "))
		if !regexp.MustCompile(`^Created: img_42(0(0[2-9]|[1-9][0-9])|1[0-9]{2}|2([0-4][0-9]|5[0-4]))\n$`).MatchString(out) {
			t.Errorf("pull printed %q", out)
		}
		if got, want := h.Must(t, "images"), "IMAGE_ID\tSOURCE\n"+image+"\tdebian:12\n"; got != want {
			t.Errorf("images printed %q; want %q", got, want)
		}
		for _, called := range []string{image, "debian:12"} {
			if got := h.Must(t, "run", called, "cat", "/etc/debian_version"); !strings.HasPrefix(got, "12.") {
				t.Errorf("run of %s printed %q", called, got)
			}
		}
		first := ids(t, h)[0]
		if got := h.Must(t, "ps"); !strings.HasPrefix(got, "CONTAINER_ID\tCOMMAND\n"+first+"\tcat /etc/debian_version\n") {
			t.Errorf("ps printed %q", got)
		}
		if got := h.Must(t, "logs", first); !strings.HasPrefix(got, "12.") {
			t.Errorf("logs printed %q", got)
		}
		if got := h.Must(t, "rm", first); got != "Removed: "+first+"\n" {
			t.Errorf("rm printed %q", got)
		}
		if r := h.Shocker(t, "run", image, "which", "wget"); r.Code != 1 || r.Stdout+r.Stderr != "" {
			t.Errorf("which wget: %+v; want status 1 and nothing printed", r)
		}
		h.Must(t, "run", "--name", "install", image, "sh", "-c", "apt-get update && apt-get install -y wget")
		if got, want := h.Must(t, "commit", "install", image), fmt.Sprintf("Removed: %[1]s\nCreated: %[1]s\n", image); got != want {
			t.Errorf("commit printed %q; want %q", got, want)
		}
		if got := h.Must(t, "run", image, "which", "wget"); got != "/usr/bin/wget\n" {
			t.Errorf("which wget: %q", got)
		}
		// What needs the user namespace to be whole.
		for command, want := range map[string]string{
			"su -s /bin/sh www-data -c id":                                         "uid=33(www-data) gid=33(www-data) groups=33(www-data)\n",
			"touch /tmp/x; chown games:mail /tmp/x; stat -c %U:%G /tmp/x":          "games:mail\n",
			"adduser --quiet --disabled-password --gecos x anna && id -nu 1000":    "anna\n",
			"cat /proc/self/uid_map | awk '{print $1, $3}'":                        "0 65536\n",
			"cut -d: -f1 /etc/passwd | head -1; dpkg -l wget | tail -1 | cut -c-9": "root\nii  wget \n",
		} {
			if got := h.Must(t, "run", "--rm", image, "sh", "-c", command); got != want {
				t.Errorf("%s: %q; want %q", command, got, want)
			}
		}
		removeAll(t, h, before, "files")
	})
}

// TestLimits reads back what a container is given, while it is there.
func TestLimits(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		v2 := exists("/sys/fs/cgroup/cgroup.controllers")
		read := func(id, v1File, v2File string) string {
			path := "/sys/fs/cgroup/" + id + "/" + v2File
			if !v2 {
				controller, _, _ := strings.Cut(v1File, ".")
				path = "/sys/fs/cgroup/" + controller + "/" + id + "/" + v1File
			}
			return strings.TrimSpace(ok(t, h.Sh(t, "cat "+path)))
		}
		for _, test := range []struct {
			env, flags, v1File, v1, v2File, v2 string
		}{
			{"", "", "memory.limit_in_bytes", "512000000", "memory.max", "512000000"},
			{"", "", "cpu.shares", "512", "cpu.weight", ""},
			{"", "", "pids.max", "4096", "pids.max", "4096"},
			{"SHOCKER_CPU_SHARE=1024", "", "cpu.shares", "1024", "cpu.weight", "100"},
			{"SHOCKER_MEM_LIMIT=1024", "", "memory.limit_in_bytes", "1024000000", "memory.max", "1024000000"},
			{"SHOCKER_MEM_LIMIT=1024", "--memory 256", "memory.limit_in_bytes", "256000000", "memory.max", "256000000"},
			{"", "--cpu-shares 1024", "cpu.shares", "1024", "cpu.weight", "100"},
			{"", "--cpus 0.5", "cpu.cfs_quota_us", "50000", "cpu.max", "50000 100000"},
			{"", "--pids-limit 77", "pids.max", "77", "pids.max", "77"},
		} {
			ok(t, h.Sh(t, test.env+" shocker run --name x "+test.flags+" "+image+" cat /proc/1/cgroup >cgroup"))
			id := ids(t, h)[0]
			want := test.v1
			if v2 {
				want = test.v2
			}
			if got := read(id, test.v1File, test.v2File); got != want && want != "" {
				t.Errorf("%s run %s: %s %s is %s; want %s", test.env, test.flags, test.v1File, test.v2File, got, want)
			}
			group, err := os.ReadFile("cgroup")
			if err != nil {
				t.Fatal(err)
			}
			if want := ":memory:/" + id + "\n"; !v2 && !strings.Contains(string(group), want) {
				t.Errorf("/proc/1/cgroup: %s; want %q in it", group, want)
			}
			if v2 && string(group) != "0::/\n" {
				t.Errorf("/proc/1/cgroup: %s; want a cgroup namespace", group)
			}
			h.Must(t, "rm", id)
		}
		for _, bad := range []string{"--memory lots", "--memory -5", "--cpu-shares x", "--cpus -1", "--pids-limit x"} {
			r := h.Sh(t, "shocker run "+bad+" "+image+" true")
			if r.Code == 0 || strings.Count(r.Stderr, "\n") != 1 || len(ids(t, h)) != 0 {
				t.Errorf("run %s: %+v; want one line and no container", bad, r)
			}
		}
	})
}
