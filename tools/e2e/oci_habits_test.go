package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/testkit"
)

// habit is what somebody who knows other runtimes types, and what comes of it.
type habit struct {
	script, want string
}

// habits runs each in turn on a fresh bundle of sleep, and deletes the
// container `one` after it.
func habits(t *testing.T, list ...habit) {
	t.Helper()
	onOCI(t, func(t *testing.T, h *testkit.Host, oci func(string) testkit.Result) {
		ok(t, h.Sh(t, `cp bundle/config.json fresh.json`))
		for _, step := range list {
			r := oci(step.script)
			if r.Stdout != step.want {
				t.Errorf("%s\nprints %q, want %q\n%s", step.script, r.Stdout, step.want, r.Stderr)
			}
			ok(t, oci(`oci delete -f one; cp fresh.json bundle/config.json`))
		}
	})
}

// TestOCIFlagsAfter: flags may follow the id.
func TestOCIFlagsAfter(t *testing.T) {
	habits(t,
		habit{`oci run one -d -b bundle && oci update one --pids-limit 77 && cat /sys/fs/cgroup/pids/one/pids.max /sys/fs/cgroup/one/pids.max 2>/dev/null; oci delete one --force; oci list -q`, "77\n"},
		habit{`oci run -d -b bundle one; oci exec -e A=1 --env B=2 one sh -c 'echo $A$B'`, "12\n"},
		habit{`oci run -d -b bundle one; oci exec one echo -d --tty; oci ps one -o pid | sed -n '1s/ *//p'`, "-d --tty\nPID\n"},
	)
}

// TestOCICallersTerminal: a program's terminal is shown on the caller's, line
// by line, and what is redirected is not.
func TestOCICallersTerminal(t *testing.T) {
	onOCI(t, func(t *testing.T, h *testkit.Host, oci func(string) testkit.Result) {
		ok(t, oci(`edit '.process.terminal = true'; program sh -c 'stty size; tty; read x; echo "<$x>"'`))
		run := "shocker-oci --root " + h.Dir + "/oci run -b bundle one"
		term := newTerminal(t, 33, 101)
		before := term.mode()
		cmd := term.start("sh", "-c", run)
		term.expect("33 101\r\n/dev/pts/0\r\n")
		term.types("typed\r")
		term.expect("typed\r\n<typed>\r\n")
		if code := term.ended(cmd); code != 0 {
			t.Errorf("on a terminal: status %d; want 0", code)
		}
		// Only the terminal that controls us is left.
		ok(t, oci(`program sh -c 'stty size; tty'`))
		cmd = term.start("sh", "-c", run+" </dev/null 2>err | cat >out")
		if code := term.ended(cmd); code != 0 {
			t.Errorf("with all redirected: status %d; want 0", code)
		}
		if out, err := os.ReadFile("out"); err != nil || string(out) != "33 101\n/dev/pts/0\n" {
			t.Errorf("with all redirected: %q, %v", out, err)
		}
		if term.mode() != before {
			t.Error("the caller's terminal is not as it was")
		}
		// None at all.
		none := exec.Command("sh", "-c", run)
		none.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if out, err := none.CombinedOutput(); err == nil {
			t.Errorf("without a terminal: %q; want a failure", out)
		}
		if left, err := filepath.Glob("oci/*"); err != nil || len(left) > 0 {
			t.Errorf("without a terminal: left %q, %v", left, err)
		}
	})
}

// TestOCIHabits is what else users and suites of other runtimes expect.
func TestOCIHabits(t *testing.T) {
	const procs = `cat /sys/fs/cgroup/pids/one/cgroup.procs /sys/fs/cgroup/one/cgroup.procs 2>/dev/null`
	const shared = `edit '.linux.namespaces -= [{type: "pid"}]'; oci run -d --pid-file pid -b bundle one; oci exec -d one sleep 999; ` + procs + ` | wc -l; `
	habits(t,
		// Without a pid namespace of its own a killed container leaves nobody.
		habit{shared + `oci kill one KILL; wait_for is one stopped; wait_for [ -z "$(` + procs + `)" ]; oci kill one KILL || echo none left`, "2\nnone left\n"},
		habit{shared + `oci kill one TERM; kill -9 $(cat pid); wait_for is one stopped; oci kill one TERM || echo first gone; oci kill one 9 && wait_for [ -z "$(` + procs + `)" ] && echo all gone`, "2\nfirst gone\nall gone\n"},
		// A group below the container's is below it, and is one that there is.
		habit{`oci run -d -b bundle one; for g in .. a/../../b nosuch whaaat:/ pids:../one; do oci exec --cgroup $g one true 2>err; echo $?; done; grep -c whaaat err; oci exec --cgroup / one echo in`, "255\n255\n255\n255\n255\n0\nin\n"},
		// A new config has a cgroup namespace on v2 only.
		habit{`mkdir new && oci spec -b new; jq '[.linux.namespaces[].type] | index("cgroup") != null' new/config.json >has; [ -e /sys/fs/cgroup/cgroup.controllers ] && echo true >want || echo false >want; cmp has want && echo as the host`, "as the host\n"},
		habit{`mkdir full; mount -t tmpfs -o size=4k x full; echo >full/file; oci spec -b full; echo $?; ls full; umount full`, "1\nfile\n"},
		// A rootless one has no other ids than the caller's, and runs.
		habit{`mkdir -p rootless; ln -sfn ../bundle/rootfs rootless/rootfs; oci spec -b rootless --rootless; jq '.process.terminal = false | .process.args = ["id", "-u"]' rootless/config.json >c
			mv c rootless/config.json; oci run -b rootless one; jq -c '[.linux.uidMappings[0].size, .linux.resources]' rootless/config.json; rm -r rootless`, "0\n[1,null]\n"},
		// Words that engines and suites look for.
		habit{`program /nosuch; oci run -b bundle one 2>&1 | grep -o 'exec /nosuch: no such file or directory'`, "exec /nosuch: no such file or directory\n"},
		habit{`rm -rf bundle/rootfs/proc; ln -s tmp bundle/rootfs/proc; oci run -b bundle one 2>&1 | grep -o 'must be mounted on ordinary directory'; rm bundle/rootfs/proc; mkdir bundle/rootfs/proc`, "must be mounted on ordinary directory\n"},
		habit{`shocker-oci --root nosuch list -q 2>err || grep -o 'nosuch: does not exist' err; shocker-oci --root '' list 2>&1 | grep -o 'want a directory'`, "nosuch: does not exist\nwant a directory\n"},
		// Who asks for the version wants nothing else.
		habit{`program true; shocker-oci --root oci --version run -b bundle one | grep -c spec:; shocker-oci -v list | grep -c spec:; oci list -q`, "1\n1\n"},
		// Help is where the flag is.
		habit{`oci update --cpu-shares 5 one 2>&1 | grep -o 'see .*'; oci --nosuch 2>&1 | grep -o 'see .*'`, "see shocker-oci update --help)\nsee shocker-oci --help)\n"},
		// Warnings are seen where no log is asked for, but for what buildah asks of each RUN.
		habit{
			`edit '.process.capabilities.ambient = ["CAP_KILL"] | .process.capabilities.bounding += ["CAP_NOSUCH"]
				| .mounts += [{destination: "/z", type: "bind", source: "'$PWD'", options: ["bind", "z", "U"]}, {destination: "/y", type: "bind", source: "'$PWD'", options: ["bind", "z", "nosuidd"]}]'
			program true
			shocker-oci --root oci run -b bundle one 2>&1 | sed 's/ are .*: / /; s/[a-z]*er-oci/oci/'; oci run -b bundle one 2>&1; grep -c '"warning"' log; grep -c 'left out"' log`,
			"oci: warning: capabilities that [\"CAP_NOSUCH\"]\noci: warning: options [\"z\" \"nosuidd\"] mean nothing to the bind mount on /y\n4\n2\n",
		},
		// What only cgroup v1 has is left out on v2, with a warning.
		habit{
			`has() { cat /sys/fs/cgroup/memory/one/memory.swappiness 2>/dev/null || grep -o 'memory.swappiness: left out' log; }; rm -f log
			edit '.linux.resources.memory = {swappiness: 10}'; oci run -d -b bundle one; has | grep -cx -e 10 -e '.*left out'
			echo '{"memory":{"swappiness":20}}' | oci update -r - one; has | tail -n 1 | grep -cx -e 20 -e '.*left out'`,
			"1\n1\n",
		},
		// An engine updates with all that its config says: the devices of every container stay.
		habit{`oci run -d -b bundle one; jq '.linux.resources + {devices: [{allow: false, access: "rwm"}], pids: {limit: 77}}' bundle/config.json | oci update -r - one
			cat /sys/fs/cgroup/pids/one/pids.max /sys/fs/cgroup/one/pids.max 2>/dev/null; oci exec one sh -c 'echo >/dev/null && echo null'`, "77\nnull\n"},
		// What is inheritable is ambient as well, or another user would not have it.
		habit{`edit '.process.capabilities.inheritable = ["CAP_CHOWN"] | .process.capabilities.bounding += ["CAP_CHOWN"]'; oci run -d -b bundle one
			oci exec -u 1000 --cap CAP_CHOWN one grep -e CapEff -e CapAmb /proc/self/status | tr -s '\t0' ' '`, "CapEff: 1\nCapAmb: 1\n"},
		// The CPUs of a container are those of its cpuset, not its caller's.
		habit{`edit 'del(.linux.resources)'; oci run -d -b bundle two; all=$(oci exec two nproc); oci delete -f two; program nproc
			[ $(taskset -c 0 shocker-oci --root oci run -b bundle one) = $all ] && program sleep 1000 && oci run -d -b bundle one
			[ $(taskset -c 0 shocker-oci --root oci exec one nproc) = $all ] && echo as many`, "as many\n"},
	)
}

// TestOCIHookConfined: a hook out of the container's root is what the container
// is, with its environment unless it has one; those of the host have ours.
func TestOCIHookConfined(t *testing.T) {
	const wear = `cat >bundle/rootfs/hook <<-'E'
			#!/bin/sh
			exec >/tmp/hook
			id -u; id -G; env | grep -e ONE -e HOME | sort; grep -e CapEff -e NoNewPrivs -e Seccomp: /proc/self/status | tr -s '\t0' ' '
		E
		chmod +x bundle/rootfs/hook; chmod 1777 bundle/rootfs/tmp; rm -f bundle/rootfs/tmp/*
		edit '.root.readonly = false | .process.env = ["ONE=two", "PATH=/bin"] | .process.user = {uid: 1000, gid: 1000, additionalGids: [5]} | .process.args = ["true"]
			| .linux.seccomp = {defaultAction: "SCMP_ACT_ALLOW", syscalls: [{names: ["mkdir", "mkdirat"], action: "SCMP_ACT_KILL"}]}
			| .hooks = {startContainer: [{path: "/hook"}]}'
		`
	const worn = "1000\n1000 5\nHOME=/\nONE=two\nCapEff: \nNoNewPrivs: 1\nSeccomp: 2\n"
	const mkdir = `edit '.hooks.startContainer = [{path: "/bin/sh", args: ["sh", "-c", "mkdir /tmp/x"]}]'; oci run -b bundle one 2>&1 | grep -o 'error running startContainer hook #0: /bin/sh: signal: bad system call'; ls bundle/rootfs/tmp`
	const killed = "error running startContainer hook #0: /bin/sh: signal: bad system call\n"
	habits(t,
		habit{wear + `oci run -b bundle one; cat bundle/rootfs/tmp/hook`, worn},
		habit{wear + `edit '.process.noNewPrivileges = false'; oci create -b bundle one && oci start one && cat bundle/rootfs/tmp/hook`, strings.Replace(worn, "NoNewPrivs: 1", "NoNewPrivs: ", 1)},
		habit{wear + `chmod 755 . bundle; edit '.linux.namespaces += [{type: "user"}] | .linux.uidMappings = [{hostID: 100000, containerID: 0, size: 65536}] | .linux.gidMappings = .linux.uidMappings'
			oci run -b bundle one; cat bundle/rootfs/tmp/hook`, worn},
		habit{wear + mkdir, killed},
		habit{wear + `edit '.process.noNewPrivileges = false'; ` + mkdir, killed},
		habit{`export OURS=1; edit '.process.args = ["true"] | .hooks = {prestart: [{path: "/bin/sh", args: ["sh", "-c", "echo $OURS >prestart"]}], poststop: [{path: "/bin/sh", args: ["sh", "-c", "echo .$OURS >poststop"], env: []}]}'
			oci run -b bundle one; cat bundle/prestart bundle/poststop`, "1\n.\n"},
	)
}

// TestOCIPidfdSocket gives an engine a name for the process that is not used
// again.
func TestOCIPidfdSocket(t *testing.T) {
	onOCI(t, func(t *testing.T, h *testkit.Host, oci func(string) testkit.Result) {
		listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: "socket"})
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		pidOf := func() string {
			if err := listener.SetDeadline(time.Now().Add(testkit.Patience(20 * time.Second))); err != nil {
				t.Fatal(err)
			}
			conn, err := listener.AcceptUnix()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			oob := make([]byte, unix.CmsgSpace(4))
			_, n, _, _, err := conn.ReadMsgUnix(make([]byte, 64), oob)
			if err != nil {
				t.Fatal(err)
			}
			messages, err := unix.ParseSocketControlMessage(oob[:n])
			if err != nil || len(messages) != 1 {
				t.Fatal(messages, err)
			}
			fds, err := unix.ParseUnixRights(&messages[0])
			if err != nil || len(fds) != 1 {
				t.Fatal(fds, err)
			}
			defer unix.Close(fds[0])
			info, err := os.ReadFile(fmt.Sprint("/proc/self/fdinfo/", fds[0]))
			if err != nil {
				t.Fatal(err)
			}
			_, rest, _ := strings.Cut(string(info), "\nPid:\t")
			pid, _, _ := strings.Cut(rest, "\n")
			return pid
		}
		for _, script := range []string{
			`oci create -b bundle --pidfd-socket socket --pid-file pid one`,
			`oci start one && oci exec -d --pidfd-socket socket --pid-file pid one sleep 999`,
			`oci delete -f one; oci run -d -b bundle --pidfd-socket socket --pid-file pid one`,
		} {
			ok(t, oci(script))
			want, err := os.ReadFile("pid")
			if got := pidOf(); err != nil || got != string(want) {
				t.Errorf("%s: the pidfd is of %q; want %q, %v", script, got, want, err)
			}
		}
		if r := oci(`oci create -b bundle --pidfd-socket nosuch two`); r.Code == 0 || !strings.Contains(r.Stderr, "pidfd socket: connect to nosuch: does not exist\n") {
			t.Errorf("with no socket: %+v", r)
		}
		ok(t, oci(`oci delete -f one`))
	})
}

// TestOCIReadOnlyTmpfs: what belongs on a tmpfs gets there before it becomes
// read-only.
func TestOCIReadOnlyTmpfs(t *testing.T) {
	const ro = `.mounts |= map(if .destination == "/dev" then .options += ["ro"] else . end)
		| .mounts += [{destination: "/run", type: "tmpfs", source: "tmpfs", options: ["ro"]},
			{destination: "/run/in/it", type: "bind", source: "/etc", options: ["bind"]},
			{destination: "/srv", type: "tmpfs", source: "tmpfs", options: ["ro", "tmpcopyup"]},
			{destination: "/mnt", type: "tmpfs", source: "tmpfs", options: ["ro"]},
			{destination: "/mnt", type: "tmpfs", source: "tmpfs", options: ["remount", "rw"]}]
		| .process.cwd = "/run/work" | .linux.devices = [{path: "/run/mydev", type: "c", major: 1, minor: 3}]`
	const look = `program sh -c 'pwd; for d in /dev /run /srv /mnt; do touch $d/x 2>/dev/null && echo $d is writable; done; test -c /run/mydev -a -e /run/in/it/passwd -a -d /dev/pts && echo all there'; oci run -b bundle one`
	const want = "/run/work\n/mnt is writable\nall there\n"
	habits(t,
		habit{`edit '` + ro + `'; ` + look, want},
		habit{`chmod 755 . bundle; edit '` + ro + ` | del(.linux.devices) | .linux.namespaces += [{type: "user"}]
			| .linux.uidMappings = [{hostID: 100000, containerID: 0, size: 65536}] | .linux.gidMappings = .linux.uidMappings'
			program sh -c 'pwd; for d in /dev /run /srv /mnt; do touch $d/x 2>/dev/null && echo $d is writable; done; test -e /run/in/it/passwd -a -d /dev/pts && echo all there'; oci run -b bundle one`, want},
	)
}
