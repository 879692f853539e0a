package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"shocker.sh/lib/testkit"
)

// TestInside: what a program finds.
func TestInside(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		for i, test := range []struct {
			flags, command, want string
			code                 int
		}{
			{"", "id", "uid=0(root) gid=0(root)\n", 0},
			{"", "sh -c 'echo $HOME $PATH'", "/root /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n", 0},
			{"", "'test $(hostname) = $HOSTNAME'", "", 0},
			{"", "'echo one | tr o 0'", "0ne\n", 0},
			{"", "'exit 9'", "", 9},
			// The first process of a pid namespace does not hear itself.
			{"", "sh -c 'kill -TERM $$; echo alive'", "alive\n", 0},
			{"-u 33", "id -u", "33\n", 0},
			{"-u 33:44", "sh -c 'id -u; id -g; id -G'", "33\n44\n44\n", 0},
			{"-w /tmp", "pwd", "/tmp\n", 0},
			{"-w /made/for/it", "pwd", "/made/for/it\n", 0},
			{"-e X=1 -e X=2", "sh -c 'echo $X'", "2\n", 0},
			{"-e 'X= a,b '", "sh -c 'echo \"[$X]\"'", "[ a,b ]\n", 0},
			{"-e SHOCKER_ROOT -e NOT_SET_OUTSIDE", "sh -c 'test -n \"$SHOCKER_ROOT\"; echo $? ${NOT_SET_OUTSIDE-unset}'", "0 unset\n", 0},
			{"--hostname web", "sh -c 'hostname; cat /etc/hostname; grep -c web /etc/hosts'", "web\nweb\n1\n", 0},
			{"--entrypoint /bin/echo", "a b", "a b\n", 0},
			{"--network none", "sh -c 'ls /sys/class/net; ip -4 -o addr | wc -l'", "lo\n1\n", 0},
			// Nothing of the host is written to.
			{"", "sh -c 'touch /sys/x 2>/dev/null || echo no'", "no\n", 0},
			{"", "sh -c 'echo 1 >/proc/sys/kernel/panic 2>/dev/null || echo no'", "no\n", 0},
			{"", "sh -c 'cat /proc/kcore 2>/dev/null | wc -c'", "0\n", 0},
			{"", "sh -c 'mknod /tmp/n c 1 3 2>/dev/null || echo no'", "no\n", 0},
			{"", "sh -c 'mount -t tmpfs x /mnt 2>/dev/null || echo no'", "no\n", 0},
			{"", "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1\n", 0},
			{"", "grep CapEff /proc/self/status", "CapEff:\t00000000a80425fb\n", 0},
			{"-u 33", "grep -e CapEff -e CapBnd /proc/self/status", "CapEff:\t0000000000000000\nCapBnd:\t00000000a80425fb\n", 0},
			{"", "sh -c 'ls /proc/self/fd | wc -l'", "4\n", 0},
			{"", "sh -c 'ulimit -n'", "", 0},
			{"", "sh -c 'echo x >/dev/null; head -c 3 /dev/zero | wc -c; ls -d /dev/pts /dev/shm /dev/mqueue'", "3\n/dev/mqueue\n/dev/pts\n/dev/shm\n", 0},
			// Port 80 is everybody's, as is ping.
			{"-u 33", "sh -c 'nc -l -p 80 -w 1 </dev/null; echo $?' 2>&1 | tail -1", "1\n", 0},
			{"", "cat", "", 0}, // stdin is /dev/null
		} {
			if testing.Short() && i%4 != 0 {
				continue // each of them takes long on an emulated machine
			}
			if strings.Contains(test.command, "ulimit") {
				soft := ok(t, h.Sh(t, "ulimit -n"))
				test.want = soft // as Go's runtime found it, not as it leaves it
			}
			r := h.Sh(t, "shocker run --rm "+test.flags+" "+image+" "+test.command)
			if r.Code != test.code || r.Stdout != test.want {
				t.Errorf("run %s %s: %+v; want %d, %q", test.flags, test.command, r, test.code, test.want)
			}
		}
		if left := ids(t, h); len(left) != 0 {
			t.Errorf("--rm left %q", left)
		}
	})
}

// TestImageConfig: Env, WorkingDir, User, Entrypoint and Cmd are honoured.
func TestImageConfig(t *testing.T) {
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		t.Chdir(h.Dir)
		push(t, h, h.Busybox(t), "configured:1", "--config.env FROM=image --config.env OTHER=image",
			"--config.workingdir /var --config.user 12:34 --config.entrypoint /bin/sh --config.entrypoint -c",
			`--config.cmd 'echo $FROM $OTHER; pwd; id -u; id -g'`)
		ref := h.Registry(t) + "/configured:1"
		h.Must(t, "pull", ref)
		if got, want := h.Must(t, "run", "-e", "OTHER=asked", ref), "image asked\n/var\n12\n34\n"; got != want {
			t.Errorf("the image's own program printed %q; want %q", got, want)
		}
		if got := h.Must(t, "run", "-u", "0", "-w", "/", ref, "pwd"); got != "/\n" {
			t.Errorf("with flags in their place: %q", got)
		}
	})
}

// TestReaderGone: the program gets SIGPIPE when nobody reads any more.
func TestReaderGone(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		began := time.Now()
		if got := ok(t, h.Sh(t, "shocker run "+image+" yes | head -n 1")); got != "y\n" {
			t.Errorf("head read %q", got)
		}
		if took := time.Since(began); took > testkit.Patience(10*time.Second) {
			t.Errorf("it took %v to end", took)
		}
	})
}

// TestStreamsNotWhole: output that cannot be written, and input that cannot be
// read, are no success of the program.
func TestStreamsNotWhole(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		h.Must(t, "run", "-d", "--name", "x", image, "sleep", "1000")
		for command, want := range map[string]string{
			"echo lost >/dev/full":         "stdout is not complete",
			"sh -c 'echo >&2' 2>/dev/full": "",
			"cat </":                       "stdin is not complete",
			"cat </proc/self/mem":          "stdin is not complete",
			"cat <&-":                      "",
			"cat </dev/null >&-":           "",
			"true </etc/passwd":            "",
		} {
			for _, verb := range []string{"run --rm -i " + image, "exec -i x"} {
				r := h.Sh(t, "shocker "+verb+" "+command)
				wrong := want != "" || strings.Contains(command, "/dev/full")
				if wrong != (r.Code == 1) || !strings.Contains(r.Stderr, want) || want == "" && r.Stderr != "" {
					t.Errorf("%s %s: %+v; want %q", verb, command, r, want)
				}
			}
		}
		if r := h.Sh(t, "shocker run --rm "+image+" 'echo lost; exit 7' >/dev/full"); r.Code != 7 || !strings.Contains(r.Stderr, "no space left on device") {
			t.Errorf("the program's own status: %+v; want 7 and the error", r)
		}
	})
}

// TestLife: detached, named, executed in, stopped, waited for, started again.
func TestLife(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		id := strings.TrimSpace(h.Must(t, "run", "-d", "--name", "web", image, "sh", "-c", "trap 'sleep 0.5; exit 5' TERM; echo up; while :; do sleep 0.1; done"))
		if list := h.Must(t, "ps", "-l"); !strings.Contains(list, "\trunning\t"+image+"\t") || !strings.Contains(list, "\t10.0.0.2\tweb\n") {
			t.Errorf("ps -l: %s", list)
		}
		if r := h.Shocker(t, "run", "--name", "web", image, "true"); r.Code != 125 || !strings.Contains(r.Stderr, id) {
			t.Errorf("the name again: %+v; want it refused, with the owner's id", r)
		}
		if r := h.Shocker(t, "exec", "-e", "A= b,c ", "-w", "/tmp", "-u", "7", "web", "sh", "-c", "echo \"$A\"; pwd; id -u; exit 3"); r.Code != 3 || r.Stdout != " b,c \n/tmp\n7\n" {
			t.Errorf("exec: %+v", r)
		}
		if got := ok(t, h.Sh(t, "echo in | shocker exec -i web cat")); got != "in\n" {
			t.Errorf("exec -i: %q", got)
		}
		if got := h.Must(t, "exec", "web", "sh", "-c", "tr '\\0' ' ' </proc/1/cmdline; cat /proc/self/cgroup | cut -d: -f3 | sort -u"); !strings.HasPrefix(got, "sh -c trap") {
			t.Errorf("exec sees %q", got)
		}
		if r := h.Shocker(t, "exec", "web", "nosuchprogram"); r.Code != 127 {
			t.Errorf("exec of nothing: %+v; want 127", r)
		}
		if r := h.Shocker(t, "rm", "web"); r.Code != 1 || !strings.Contains(r.Stderr, "is running") {
			t.Errorf("rm of a running one: %+v", r)
		}
		h.Must(t, "stop", "web")
		if got := h.Must(t, "wait", "web"); got != "5\n" {
			t.Errorf("wait: %q", got)
		}
		if r := h.Shocker(t, "exec", "web", "true"); r.Code != 1 || !strings.Contains(r.Stderr, fmt.Sprintf("Container '%s' exists but is not running", id)) {
			t.Errorf("exec in a stopped one: %+v", r)
		}
		h.Must(t, "start", "web")
		if got := h.Must(t, "exec", "web", "cat", "/etc/hostname"); got != id+"\n" {
			t.Errorf("after start: %q", got)
		}
		if r := h.Shocker(t, "start", "web"); r.Code != 1 || !strings.Contains(r.Stderr, "is running") {
			t.Errorf("start twice: %+v", r)
		}
		testkit.Eventually(t, testkit.Patience(10*time.Second), func() error { // it has its trap
			if log := h.Must(t, "logs", "web"); log != "up\nup\n" {
				return fmt.Errorf("log: %q", log)
			}
			return nil
		})
		h.Must(t, "stop", "-t", "-1", "web")
		if got := h.Must(t, "wait", "web"); got != "5\n" {
			t.Errorf("wait after a stop without end: %q", got)
		}
		h.Must(t, "start", "web")
		h.Must(t, "kill", "web")
		if got := h.Must(t, "wait", "web"); got != "137\n" {
			t.Errorf("wait after kill: %q", got)
		}
		h.Must(t, "run", "-d", "--name", "other", image, "sleep", "1000")
		h.Must(t, "rm", "-f", "other", "web")
		removeAll(t, h, h.Start(), "files")
	})
}

// TestCommit: of a running container that writes, and in the place of an
// image that containers were made from.
func TestCommit(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		h.Must(t, "run", "-d", "--name", "writer", image, "sh", "-c", "i=0; while :; do i=$((i+1)); echo $i >/t; mv /t /a; echo $i >/t; mv /t /b; done")
		testkit.Eventually(t, testkit.Patience(10*time.Second), func() error {
			if r := h.Shocker(t, "exec", "writer", "cat", "/b"); r.Code != 0 || r.Stdout == "" {
				return errors.New(r.Stderr)
			}
			return nil
		})
		out := h.Must(t, "commit", "writer")
		made := strings.TrimSpace(strings.TrimPrefix(out, "Created: "))
		got := strings.Fields(h.Must(t, "run", "--rm", made, "cat", "/a", "/b"))
		if len(got) != 2 {
			t.Errorf("the image has %q", got)
		}
		// It goes on afterwards.
		testkit.Eventually(t, testkit.Patience(10*time.Second), func() error {
			if now := strings.TrimSpace(h.Must(t, "exec", "writer", "cat", "/a")); now == got[0] || now == "" {
				return fmt.Errorf("/a is still %q", now)
			}
			return nil
		})
		if r := h.Shocker(t, "rmi", image); r.Code != 1 || !strings.Contains(r.Stderr, "in use") {
			t.Errorf("rmi of an image in use: %+v", r)
		}
	})
}

// TestTwentyAtOnce: no two commands get the same id or address.
func TestTwentyAtOnce(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		out := ok(t, h.Sh(t, "for i in $(seq 20); do shocker run "+image+" sh -c 'hostname; ip -4 -o addr show eth0' & done; wait"))
		var names, addresses []string
		for f := range strings.FieldsSeq(out) {
			if strings.HasPrefix(f, "ps_") {
				names = append(names, f)
			}
			if strings.HasPrefix(f, "10.0.0.") && strings.HasSuffix(f, "/24") {
				addresses = append(addresses, f)
			}
		}
		slices.Sort(names)
		if n := len(slices.Compact(names)); n != 20 {
			t.Errorf("%d different ids; want 20", n)
		}
		if len(addresses) != 20 {
			t.Errorf("%d addresses; want 20", len(addresses))
		}
		removeAll(t, h, h.Start(), "files")
	})
}

// TestExecEnds: whatever step of an exec finds out that the container is being
// removed, it is told in the words that users know.
func TestExecEnds(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		before := idle(t, h, image)
		for range 12 {
			id := strings.TrimSpace(h.Must(t, "run", "-d", image, "sleep", "1000"))
			r := h.Sh(t, "(shocker rm -f "+id+" >/dev/null) & for i in 1 2 3 4 5 6; do (shocker exec "+id+" true; echo $?) & done; wait")
			for line := range strings.Lines(r.Stderr) {
				line = strings.TrimSpace(line)
				if line != "shocker: Container '"+id+"' exists but is not running" && line != "shocker: No container named '"+id+"' exists" {
					t.Errorf("exec in a container that is removed says %q", line)
				}
			}
			for code := range strings.Lines(r.Stdout) {
				if !slices.Contains([]string{"0", "1", "125", "137"}, strings.TrimSpace(code)) {
					t.Errorf("exec in a container that is removed exits with %s", code)
				}
			}
		}
		back(t, h, before, "removed while programs enter")
	})
}
