package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/testkit"
)

// onOCI runs f on a host with a bundle at ./bundle, whose program is sleep.
// `oci` in its scripts is the runtime with a root of its own.
func onOCI(t *testing.T, f func(t *testing.T, h *testkit.Host, oci func(script string) testkit.Result)) {
	t.Helper()
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		t.Chdir(h.Dir)
		h.Bin(t)
		oci := func(script string) testkit.Result {
			// A container that goes on holds what it was given: files, not the
			// pipes whose end we wait for.
			return h.Sh(t, `set +e
				oci() {
					o=$(mktemp) e=$(mktemp) r=0
					shocker-oci --root `+h.Dir+`/oci --log `+h.Dir+`/log --log-format json "$@" >$o 2>$e || r=$?
					cat $o; cat $e >&2; return $r
				}
				edit() { jq "$@" <bundle/config.json >c && [ -s c ] && mv c bundle/config.json; }
				program() { edit '.process.args = $ARGS.positional' --args -- "$@"; }
				wait_for() { i=0; until "$@"; do i=$((i + 1)); [ $i -lt 2000 ] || { echo "never: $*" >&2; exit 1; }; sleep 0.01; done; }
				is() { [ "$(oci state "$1" | jq -r .status)" = "$2" ]; }
				`+script)
		}
		ok(t, oci(`mkdir bundle && cp -a `+h.Busybox(t)+` bundle/rootfs && oci spec -b bundle &&
			edit '.process.terminal = false' && program sleep 1000`))
		before := h.Snapshot(t)
		f(t, h, oci)
		h.Settle(t, before, "files")
		if left, err := os.ReadDir(filepath.Join(h.Dir, "oci")); len(left) > 0 {
			t.Errorf("below --root is left: %v, %v", left, err)
		}
	})
}

// TestOCILife is a container's life, command by command.
func TestOCILife(t *testing.T) {
	onOCI(t, func(t *testing.T, h *testkit.Host, oci func(string) testkit.Result) {
		for _, step := range []struct {
			script, want string
		}{
			{
				`oci create -b bundle --pid-file pid one && oci state one | jq -c '[.id, .status, .ociVersion, .bundle, .rootfs, .pid > 0]'`,
				fmt.Sprintf(`["one","created","1.3.0",%q,%q,true]`+"\n", h.Dir+"/bundle", h.Dir+"/bundle/rootfs"),
			},
			{`[ $(oci state one | jq .pid) = $(cat pid) ] && [ -d /proc/$(cat pid) ] && tail -c 1 pid | grep -c '[0-9]'`, "1\n"},
			{`oci exec one echo in one that waits`, "in one that waits\n"},
			{`oci start one && oci state one | jq -r .status; tr '\0' ' ' </proc/$(cat pid)/cmdline`, "running\nsleep 1000 "},
			{`ls oci/one`, "config.json\nlock\nstate.json\nundo\n"},
			{`echo in >in; oci exec one sh -c 'read x; echo $x; echo err >&2; exit 3' <in 2>err ; echo $?; cat err`, "in\n3\nerr\n"},
			{`oci exec -u 5:6 --cwd /tmp -e A=b -g 7 one sh -c 'id -u; id -g; id -G; pwd; echo $A'`, "5\n6\n6 7\n/tmp\nb\n"},
			{`echo '{"cwd":"/","args":["echo","from a file"],"env":["PATH=/bin"],"user":{}}' >p && oci exec -p p one`, "from a file\n"},
			{`oci exec -d --pid-file pid2 one sleep 999 && oci ps -f json one | jq -c 'sort' && printf '[%s]\n' $(sort -n pid pid2 | tr '\n' ' ' | sed 's/\([0-9]\) *\([0-9]*\)/\1,\2/; s/,$//')`, ""},
			{`oci list -q; oci list -f json | jq -c '.[] | [.id, .status, .owner]'; oci list | head -1 | tr -s ' '`, "one\n[\"one\",\"running\",\"root\"]\nID PID STATUS BUNDLE CREATED OWNER\n"},
			{`oci pause one && oci state one | jq -r .status; oci exec one true; echo $?`, "paused\n255\n"},
			{`oci resume one && oci state one | jq -r .status`, "running\n"},
			{`oci update --pids-limit 77 one && cat /sys/fs/cgroup/pids/one/pids.max /sys/fs/cgroup/one/pids.max 2>/dev/null`, "77\n"},
			{`echo '{"pids":{"limit":0},"memory":{"limit":0}}' | oci update -r - one; oci events --stats one | jq -c '[.type, .id, .data.pids.limit > 0, .data.memory.usage.usage > 0]'`, `["stats","one",true,true]` + "\n"},
			{`oci delete one; echo $?`, "1\n"},
			{`oci kill one 0 && oci kill one 9 && wait_for is one stopped; oci kill one 0; echo $?; oci state one | jq -c '[.status, .pid]'`, `1` + "\n" + `["stopped",0]` + "\n"},
			{`oci kill one; echo $?; oci start one; echo $?; oci exec one true; echo $?`, "1\n1\n255\n"},
			{`oci delete one && oci delete -f one && oci delete one; echo $?`, "1\n"},
		} {
			r := oci(step.script)
			if step.want != "" && r.Stdout != step.want {
				t.Errorf("%s\nprints %q, want %q\n%s", step.script, r.Stdout, step.want, r.Stderr)
			}
			if step.want == "" {
				if lines := strings.Split(strings.TrimSpace(r.Stdout), "\n"); r.Code != 0 {
					t.Errorf("%s: %+v (%q)", step.script, r, lines)
				}
			}
		}
	})
}

// TestOCIRun is create, start and the wait in one.
func TestOCIRun(t *testing.T) {
	onOCI(t, func(t *testing.T, h *testkit.Host, oci func(string) testkit.Result) {
		for _, test := range []struct {
			script, out string
			code        int
		}{
			{`program sh -c 'cat; exit 7'; echo text | oci run -b bundle one`, "text\n", 7},
			{`program sh -c 'kill -9 $$; kill -TERM $$; sleep 1000'; oci run -b bundle one & wait_for is one running; oci kill one KILL; wait $!`, "", 137},
			{`program nosuch; oci run -b bundle one`, "", 1},
			{`program sleep 1000; oci run -d -b bundle one && oci state one | jq -r .status; oci delete -f one`, "running\n", 0},
			{`program true; oci run --keep -b bundle one; oci state one | jq -r .status; oci delete one`, "stopped\n", 0},
			// Three descriptors beyond stdio, the second of them closed to others.
			{`program sh -c 'cat <&3; ls /proc/self/fd | wc -l'; echo three >f; oci run --preserve-fds 1 -b bundle one 3<f 4</dev/null`, "three\n5\n", 0},
			{`program sh -c 'cat <&5; ls /proc/self/fd | wc -l'; oci run --preserve-fds 3 -b bundle one 3<&- 4<&- 5<f`, "three\n5\n", 0},
			{`program true; oci run --preserve-fds 3 -b bundle one 3<f 5<&-`, "", 2},
			// No number is too high to be refused at once, or wraps around to one that is open.
			{`program true; for n in 1000000000 4294967297 9223372036854775807; do timeout -s KILL 10 shocker-oci --root oci run --preserve-fds $n -b bundle one 3<f; echo $?; done
				LISTEN_FDS=9223372036854775807 timeout -s KILL 10 shocker-oci --root oci run --preserve-fds 1 -b bundle one 3<f`, "2\n2\n2\n", 2},
		} {
			r := oci(test.script)
			if r.Stdout != test.out || r.Code != test.code {
				t.Errorf("%s: %+v; want %q and status %d", test.script, r, test.out, test.code)
			}
		}
	})
}

// TestOCITerminal hands the terminal to an engine's socket, with its size.
func TestOCITerminal(t *testing.T) {
	onOCI(t, func(t *testing.T, h *testkit.Host, oci func(string) testkit.Result) {
		received := make(chan *os.File)
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrUnix{Name: "socket"})
		}
		if err == nil {
			err = unix.Listen(fd, 1)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		go func() {
			for {
				conn, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
				if err != nil {
					close(received)
					return
				}
				oob, name := make([]byte, unix.CmsgSpace(4)), make([]byte, 64)
				_, n, _, _, err := unix.Recvmsg(conn, name, oob, unix.MSG_CMSG_CLOEXEC)
				messages, err2 := unix.ParseSocketControlMessage(oob[:n])
				if err == nil && err2 == nil && len(messages) == 1 {
					if fds, err := unix.ParseUnixRights(&messages[0]); err == nil && len(fds) == 1 {
						received <- os.NewFile(uintptr(fds[0]), "terminal")
					}
				}
				unix.Close(conn)
			}
		}()
		read := func(script, until string) {
			t.Helper()
			done := make(chan testkit.Result, 1)
			go func() { done <- oci(script) }()
			var master *os.File
			select {
			case master = <-received:
			case r := <-done:
				t.Fatalf("%s: no terminal came: %+v", script, r)
			}
			defer master.Close()
			ok(t, <-done)
			text, buf := "", make([]byte, 1<<10)
			for !strings.Contains(text, until) {
				n, err := master.Read(buf)
				if err != nil {
					t.Fatalf("%s: the terminal says %q, then %v; want %q", script, text, err, until)
				}
				text += string(buf[:n])
			}
		}
		read(`edit '.process.terminal = true | .process.consoleSize = {height: 10, width: 20}'; program sh -c 'stty size; tty; sleep 1000'
			oci create -b bundle --console-socket socket one && oci start one`, "10 20\r\n/dev/pts/0\r\n")
		read(`oci exec -d -t --console-socket socket one sh -c 'test -t 0 && tty; sleep 1000'`, "/dev/pts/1\r\n")
		for script, want := range map[string]string{
			`oci create -b bundle two`:                         "cannot allocate tty",
			`oci create -b bundle --console-socket nosuch two`: "console socket: connect to nosuch",
			`oci exec -d --console-socket socket one true`:     "cannot use console socket",
		} {
			if r := oci(script); r.Code == 0 || !strings.Contains(r.Stderr, want) {
				t.Errorf("%s: %+v; want %q", script, r, want)
			}
		}
		ok(t, oci(`oci delete -f one`))
	})
}

// TestOCIErrors: the texts are what engines and users of runc know, on stderr
// and in the log; and nothing is left.
func TestOCIErrors(t *testing.T) {
	onOCI(t, func(t *testing.T, h *testkit.Host, oci func(string) testkit.Result) {
		for _, test := range []struct {
			script, want string
		}{
			{`oci create -b /nowhere one`, "config.json not found"},
			{`oci create -b bundle a/b`, "invalid container ID format"},
			{`oci create -b bundle ..`, "invalid container ID format"},
			{`oci create -b bundle ''`, "invalid container ID format"},
			{`oci state nosuch`, "container does not exist"},
			{`oci kill nosuch`, "container does not exist"},
			{`oci start nosuch`, "container does not exist"},
			{`oci delete nosuch`, "container does not exist"},
			{`oci create -b bundle one && oci create -b bundle one; s=$?; oci delete -f one; exit $s`, "container with given ID already exists"},
			{`oci run -d -b bundle one && oci start one; s=$?; oci delete -f one; exit $s`, "cannot start an already running container"},
			{`oci run -d -b bundle one && oci delete one; s=$?; oci delete -f one; exit $s`, "cannot delete container one that is not stopped: running"},
			{`oci run -d -b bundle one && oci kill one KILL && wait_for is one stopped && oci kill one; s=$?; oci delete one; exit $s`, "container not running"},
			{`oci run -d -b bundle one && oci pause one && oci exec one true; s=$?; oci delete -f one; exit $s`, "cannot exec in a paused container (use --ignore-paused to override)"},
			{`oci run -d -b bundle one && oci resume one; s=$?; oci delete -f one; exit $s`, "container not paused"},
			{`oci create -b bundle one && oci pause one && oci start one; s=$?; oci delete -f one; exit $s`, "cannot start a container in the paused state"},
			{`edit 'del(.process)'; oci create -b bundle one && is one created && oci start one; s=$?; wait_for is one stopped || s=0; oci delete -f one; cp keep bundle/config.json; exit $s`, "whose config has no process"},
			{`edit 'del(.process)'; oci run -b bundle one; s=$?; cp keep bundle/config.json; exit $s`, "it has no process"},
			{`edit 'del(.process)'; oci create -b bundle one && oci exec one true; s=$?; oci delete -f one; cp keep bundle/config.json; exit $s`, "give a whole one with --process"},
			{`oci create -b bundle --preserve-fds -1 one`, "--preserve-fds -1"},
			{`edit '.mounts += [{destination: "/tmp", type: "tmpfs", source: "x", options: ["nosuch"]}]'; oci create -b bundle one; s=$?; cp keep bundle/config.json; exit $s`, "tmpfs for /tmp: option nosuch"},
			{`edit '.linux.resources.memory.limit = 1'; oci create -b bundle one; s=$?; cp keep bundle/config.json; exit $s`, "too little memory"},
			{`oci create -b bundle/config.json one`, "not a directory"},
			{`oci create -b bundle $(printf x%.0s $(seq 256))`, "invalid container ID format"},
			{`oci run -d -b bundle one && oci pause one && oci pause one; s=$?; oci delete -f one; exit $s`, "container not running"},
			{`oci run -d -b bundle one && oci kill one KILL && wait_for is one stopped && oci update --pids-limit 9 one; s=$?; oci delete one; exit $s`, "container not running"},
			{`oci run -d -b bundle one && echo garbage | oci update -r - one; s=$?; oci delete -f one; exit $s`, "resources on stdin: invalid character"},
			{`oci run -d -b bundle one && oci update --cpuset-cpus 4095 one; s=$?; oci delete -f one; exit $s`, "cpuset.cpus"},
			{`oci run -d -b bundle one && oci update --memory 1x one; s=$?; oci delete -f one; exit $s`, `--memory "1x": not an amount`},
			{`edit '.hooks.startContainer = [{path: "/bin/false"}]'; oci create -b bundle one && oci start one; s=$?; wait_for is one stopped; oci delete one; cp keep bundle/config.json; exit $s`, "error running startContainer hook #0: /bin/false"},
			{`oci run -d -b bundle one && oci kill one NOSUCH; s=$?; oci delete -f one; exit $s`, "NOSUCH"},
			{`program nosuch; oci create -b bundle one`, "executable file not found in $PATH"},
			{`program /nosuch; oci create -b bundle one`, "no such file or directory"},
			{`program /etc; oci create -b bundle one`, "permission denied"},
			{`program true; edit '.ociVersion = "2.0.0"'; oci create -b bundle one`, "ociVersion"},
			{`edit '.ociVersion = "1.0.0" | .root.path = "nosuch"'; oci create -b bundle one`, "root"},
			{`edit '.root.path = "rootfs" | .process.cwd = "x"'; oci create -b bundle one`, "cwd"},
			{`edit '.process.cwd = "/" | .hooks.prestart = [{"path":"/bin/false"}]'; oci create -b bundle one`, "/bin/false"},
			{`edit '.hooks.prestart = [{"path":"/bin/sleep","args":["sleep","100"],"timeout":1}]'; oci create -b bundle one`, "/bin/sleep"},
			{`edit '.hooks = {"poststart": [{"path":"/bin/false"}]}'; oci create -b bundle one && oci start one; s=$?; oci delete -f one; exit $s`, "/bin/false"},
			{`edit 'del(.hooks)'; echo '{' >p; oci run -d -b bundle one && oci exec -p p one; s=$?; oci delete -f one; exit $s`, "p: "},
		} {
			ok(t, h.Sh(t, `: >log`))
			r := oci(`program sleep 1000; cp bundle/config.json keep; ` + test.script)
			if r.Code == 0 || r.Stdout != "" || !strings.Contains(r.Stderr, test.want) {
				t.Errorf("%s: %+v; want a failure with %q", test.script, r, test.want)
			}
			data, err := os.ReadFile("log")
			var line struct{ Level, Msg, Time string }
			for text := range strings.Lines(string(data)) {
				if line.Level == "error" {
					break
				}
				err = json.Unmarshal([]byte(text), &line)
			}
			if _, timeErr := time.Parse(time.RFC3339, line.Time); err != nil || timeErr != nil || line.Level != "error" || !strings.Contains(line.Msg, test.want) {
				t.Errorf("%s: the log has %q, %v", test.script, data, err)
			}
		}
	})
}

// TestOCIKillWaiting: a container that was asked to end before its start ends,
// whether or not its process is the first one of a pid namespace; and it stays if
// it was asked for something else.
func TestOCIKillWaiting(t *testing.T) {
	onOCI(t, func(t *testing.T, h *testkit.Host, oci func(string) testkit.Result) {
		for _, filter := range []string{`.`, `.linux.namespaces |= map(select(.type != "pid"))`} {
			for _, signal := range []string{"TERM", "INT", "HUP", "QUIT", "KILL", "--all TERM"} {
				r := oci(`cp bundle/config.json keep; edit '` + filter + `'; oci create -b bundle one; oci kill one 0 && is one created || echo early; oci kill one ` + signal + `
					wait_for is one stopped; oci start one; oci kill one; oci delete one; mv keep bundle/config.json`)
				if r.Code != 0 || r.Stdout != "" || !strings.Contains(r.Stderr, "cannot start a container that has stopped") || !strings.Contains(r.Stderr, "container not running") {
					t.Errorf("%s of one that waits, with %s: %+v", signal, filter, r)
				}
			}
		}
		// Nor need it be told by a command of ours; one that is paused ends when it goes on.
		r := oci(`oci create --pid-file pid -b bundle one; kill -TERM $(cat pid); wait_for is one stopped; oci delete one
			oci create -b bundle one; oci pause one; oci kill one TERM; is one paused; echo $?; oci resume one; wait_for is one stopped; oci delete one`)
		if r.Code != 0 || r.Stdout != "0\n" {
			t.Errorf("without a command, and paused: %+v", r)
		}
		// Before its program runs it waits, whatever is done for its start already.
		r = oci(`edit --arg d $PWD '.hooks.startContainer = [{path: "/bin/sh", args: ["sh", "-c", "read x </go"]}] | .mounts += [{destination: "/go", type: "bind", source: ($d + "/go"), options: ["bind"]}]'
			mkfifo go; oci create -b bundle one; oci start one & start=$!; exec 8>go; timeout 60 shocker-oci --root oci kill one TERM; echo $?
			wait $start; echo $?; is one stopped; echo $?; oci delete one`)
		if r.Stdout != "0\n1\n0\n" || !strings.Contains(r.Stderr, "start one") {
			t.Errorf("TERM during a start: %+v", r)
		}
	})
}

// TestOCIHooks: each runs once, in its order, with the state that is then.
func TestOCIHooks(t *testing.T) {
	onOCI(t, func(t *testing.T, h *testkit.Host, oci func(string) testkit.Result) {
		ok(t, oci(`program sleep 1000; for w in prestart createRuntime createContainer startContainer poststart poststop; do
			edit --arg w $w --arg d $PWD '.hooks[$w] = [{path: "/bin/sh", args: ["sh", "-c", "cat >/dev/null; echo x", $w], env: ["PATH=/bin"]}]'
			[ $w = startContainer ] || edit --arg w $w --arg d $PWD '.hooks[$w][0].args[2] = "echo " + $w + " $(/usr/bin/jq -r .status) >>" + $d + "/ran"'
		done`))
		for _, step := range []struct{ script, want string }{
			{`oci create -b bundle one`, "prestart creating\ncreateRuntime creating\ncreateContainer creating\n"},
			{`oci start one`, "poststart running\n"},
			{`oci kill one KILL; wait_for is one stopped`, ""},
			{`oci delete one`, "poststop stopped\n"},
			{`oci delete -f one`, ""},
		} {
			ok(t, h.Sh(t, `: >ran`))
			ok(t, oci(step.script))
			if data, err := os.ReadFile("ran"); string(data) != step.want {
				t.Errorf("%s: hooks %q, %v; want %q", step.script, data, err, step.want)
			}
		}
	})
}

// TestOCIStartsAtOnce: of many starts one does, and the program runs once.
func TestOCIStartsAtOnce(t *testing.T) {
	onOCI(t, func(t *testing.T, h *testkit.Host, oci func(string) testkit.Result) {
		r := oci(`program sh -c 'echo runs; sleep 1000'; oci create -b bundle one
			out=$o
			for i in 1 2 3 4 5 6 7 8; do oci start one 2>>err && echo started & done; wait; wait_for grep -q runs $out; cat $out; oci delete -f one`)
		if got := ok(t, r); strings.Count(got, "started\n") != 1 || strings.Count(got, "runs\n") != 1 {
			t.Errorf("eight starts: %q", got)
		}
	})
}

// TestOCIHangingHook: a hook without a timeout is waited for until a signal
// comes, and no longer than it lives itself, whatever it leaves running.
func TestOCIHangingHook(t *testing.T) {
	onOCI(t, func(t *testing.T, h *testkit.Host, oci func(string) testkit.Result) {
		for _, when := range []string{"prestart", "createRuntime", "createContainer"} {
			for _, signal := range []string{"INT", "TERM", "HUP"} {
				r := oci(`rm -f reached; edit --arg w ` + when + ` --arg f $PWD/reached 'del(.hooks) | .hooks[$w] = [{
						path: "/bin/sh", args: ["sh", "-c", "echo >" + $f + "; exec sleep 1000"], env: ["PATH=/bin"]}]'
					env --default-signal shocker-oci --root oci create -b bundle one >out 2>&1 & wait_for test -e reached; kill -` + signal + ` $!; wait $!; echo $?
					oci state one 2>/dev/null || oci list -q; rm -f reached out`)
				if r.Code != 0 || r.Stdout != "130\n" {
					t.Errorf("%s while a hook of create hangs at %s: %+v", signal, when, r)
				}
			}
		}
		ok(t, oci(`edit --arg f $PWD/daemon '.hooks = {prestart: [{
			path: "/bin/sh", args: ["sh", "-c", "sleep 1000 & echo $! >" + $f], env: ["PATH=/bin"]}]}'; oci create -b bundle one; kill $(cat daemon); oci delete -f one`))
		if left := h.Sh(t, "pgrep -x sleep"); left.Stdout != "" {
			t.Errorf("hooks are left: %s", left.Stdout)
		}
	})
}

// TestOCIKilled kills create while each of its hooks runs, with nothing of ours
// left to clean up: delete --force does.
func TestOCIKilled(t *testing.T) {
	onOCI(t, func(t *testing.T, h *testkit.Host, oci func(string) testkit.Result) {
		for _, when := range []string{"prestart", "createRuntime", "createContainer"} {
			r := oci(`rm -f reached; edit --arg w ` + when + ` --arg f $PWD/reached 'del(.hooks) | .hooks[$w] = [{
					path: "/bin/sh", args: ["sh", "-c", "echo >" + $f + "; exec sleep 1000"], env: ["PATH=/bin"]}]'
				shocker-oci --root oci create -b bundle one >out 2>&1 & wait_for test -e reached; kill -9 $!; wait $!; echo $?
				oci state one; oci delete -f one && rm -f reached out`)
			if r.Code != 0 || r.Stdout != "137\n" {
				t.Errorf("create killed at %s: %+v", when, r)
			}
		}
	})
}
