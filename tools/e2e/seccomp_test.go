package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"shocker.sh/lib/testkit"
)

// TestSeccomp: what Docker's default profile refuses is refused, as are the
// ioctls that make subvolumes, by our last stage and by another's; and the
// rest is not.
func TestSeccomp(t *testing.T) {
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		tree := h.Busybox(t)
		build := exec.Command("go", "build", "-o", filepath.Join(tree, "bin/probe"), "shocker.sh/shocker-run/internal/container/testdata/probe")
		build.Env = append(build.Environ(), "CGO_ENABLED=0", "HOME=/root", "TMPDIR=/tmp")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build the probe: %v: %s", err, out)
		}
		t.Chdir(h.Dir)
		image := strings.TrimSpace(strings.TrimPrefix(h.Must(t, "init", tree), "Created: "))
		const refused, free = "operation not permitted", ""
		// Descriptor 3 is a directory on btrfs. Where an ioctl's argument is
		// NULL, one that gets through says so.
		calls := []struct{ what, call, want, unconfined string }{
			{"BTRFS_IOC_SUBVOL_CREATE", "10,3,5000940e", refused, "bad address"},
			{"BTRFS_IOC_SNAP_CREATE", "10,3,50009401", refused, "bad address"},
			{"BTRFS_IOC_SNAP_CREATE_V2", "10,3,50009417", refused, "bad address"},
			{"BTRFS_IOC_SUBVOL_CREATE_V2", "10,3,50009418", refused, "bad address"},
			{"SUBVOL_CREATE with an upper half", "10,3,ffffffff5000940e", refused, "bad address"},
			{"BTRFS_IOC_FS_INFO", "10,3,8400941f", "bad address", "bad address"},
			{"TCGETS", "10,3,5401", "inappropriate ioctl for device", "inappropriate ioctl for device"},
			{"FS_IOC_GETFLAGS", "10,3,80086601", "bad address", "bad address"},
			{"keyctl", "fa,0,fffffffd", refused, free},
			{"add_key", "f8", refused, "bad address"},
			{"mount", "a5", refused, "bad address"},
			{"unshare of a user namespace", "110,10000000", refused, free},
			{"clone of a user namespace", "38,10000200", refused, "invalid argument"},
			{"clone3", "1b3", "function not implemented", "invalid argument"},
			{"AF_ALG", "29,26,5", refused, free},
			{"AF_VSOCK", "29,28,1", refused, free},
			{"AF_INET", "29,2,63", "invalid argument", "invalid argument"},
			{"personality, asked", "87,ffffffff", "0", "0"},
			{"personality, another", "87,4", refused, "0"},
			{"bpf", "141", refused, free},
			{"a system call of the future", "1ff", "function not implemented", "function not implemented"},
		}
		script := "exec 3</; probe"
		for _, c := range calls {
			script += " " + c.call
		}
		check := func(who, out string, want func(i int) string) {
			t.Helper()
			lines := strings.Split(strings.TrimSpace(out), "\n")
			if len(lines) != len(calls) {
				t.Fatalf("%s: the probe printed %q", who, out)
			}
			for i, c := range calls {
				if w := want(i); w != free && lines[i] != c.call+" "+w {
					t.Errorf("%s: %s: %q; want %q", who, c.what, lines[i], w)
				}
			}
		}
		byDefault := func(i int) string { return calls[i].want }
		check("shocker-run", ok(t, h.Sh(t, "shocker run --rm "+image+" '"+script+"'")), byDefault)
		check("unconfined", ok(t, h.Sh(t, "shocker run --rm --security-opt seccomp=unconfined "+image+" '"+script+"'")), func(i int) string { return calls[i].unconfined })
		// A process that is executed in a container has its filter.
		ok(t, h.Sh(t, "shocker run -d --name box "+image+" sleep 1000"))
		check("exec", ok(t, h.Sh(t, "shocker exec box sh -c '"+script+"'")), byDefault)
		ok(t, h.Sh(t, "shocker rm -f box"))
		// Another runtime obeys the record as well. One that is older than a
		// system call knows it by no name.
		t.Setenv("SHOCKER_PATH", install(t, h, "shocker-run"))
		check("runc", ok(t, h.Sh(t, "shocker run --rm "+image+" '"+script+"'")), byDefault)
		t.Setenv("SHOCKER_PATH", "")

		write(t, "profile.json", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO","errnoRet":13,"excludes":{"caps":["CAP_SYS_ADMIN"]}}]}`)
		for _, test := range []struct {
			opt, command, want string
			code               int
		}{
			{"seccomp=default", "grep Seccomp: /proc/self/status", "Seccomp:\t2\n", 0},
			{"seccomp=unconfined", "grep Seccomp: /proc/self/status", "Seccomp:\t0\n", 0},
			{"seccomp=profile.json", "mkdir /x 2>&1", "mkdir: can't create directory '/x': Permission denied\n", 1},
			{"no-new-privileges=false", "grep -e NoNewPrivs -e Seccomp: /proc/self/status", "NoNewPrivs:\t0\nSeccomp:\t2\n", 0},
			{"seccomp=nothere.json", "true", "", 125},
			{"apparmor=x", "true", "", 2},
		} {
			r := h.Sh(t, "shocker run --rm --security-opt "+test.opt+" "+image+" '"+test.command+"'")
			if r.Code != test.code || r.Stdout != test.want || test.code > 1 && r.Stderr == "" {
				t.Errorf("--security-opt %s: %+v; want %d, %q", test.opt, r, test.code, test.want)
			}
		}
	})
}
