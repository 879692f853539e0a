package peers

import (
	"os"
	"path/filepath"
	"testing"
)

const containerdSocket = "/run/containerd-test.sock"

// serveContainerd starts a containerd.
func (s *setting) serveContainerd() {
	s.Helper()
	config := filepath.Join(s.dir, "config.toml")
	text := "version = 2\nroot = \"" + s.dir + "/containerd\"\nstate = \"/run/containerd-test\"\n" +
		"disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"" + containerdSocket + "\"\n"
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		s.Fatal(err)
	}
	s.serve("ctr --address "+containerdSocket+" version", "containerd", "--config", config)
}

// containerd of its own, by its command line ctr. Containers get its own
// default config, without a network.
var containerd = engine{
	name:  "containerd",
	needs: []string{"containerd", "ctr", "umoci", "script"},
	start: func(s *setting, root string) {
		s.serveContainerd()
		s.must(`cd "$2"
			umoci init --layout oci
			umoci new --image oci:bb
			umoci insert --image oci:bb "$1" / >/dev/null
			tar -C oci -c . | e image import --base-name bb - >/dev/null
			e image tag bb:bb docker.io/library/bb:latest`, root, s.dir)
	},
	first: `run --rm bb $N echo started`,
	e:     "exec ctr --connect-timeout 1m --address " + containerdSocket + ` "$@"`,
	run: `flags=()
		while [[ $1 == -* ]]; do
			flags+=("$1")
			shift
		done
		shift
		id=$1
		shift
		exec e run --runtime io.containerd.runc.v2 --runc-binary "$RTPATH" "${flags[@]}" docker.io/library/bb:latest "$id" "$@"`,
	remove: `e task rm -f "$1" >/dev/null 2>&1; exec e container rm "$1"`,
	clean:  `for c in $(e container ls -q | grep "^$N"); do remove "$c"; done`,
}

func TestContainerd(t *testing.T) {
	through(t, containerd, containerdRows)
}

// quiet is a container that does nothing, of containerd.
const quiet = `run --detach bb $N sleep 1000; `

var containerdRows = []row{
	{name: "exit 0", script: `run --rm bb $N true; echo $?`, want: `0`},
	{name: "exit 3", core: true, script: `run --rm bb $N sh -c 'exit 3'; echo $?`, want: `3`},
	{name: "not found", script: `run --rm bb $N nosuch; echo $?`, want: `.*executable file not found in \$PATH.*\n1`},
	{name: "stdin", core: true, script: `printf 'a\nb\n' | run --rm bb $N head -n 2`, want: "a\nb"},
	{name: "tty", core: true, script: `tty 33 77 run --rm --tty bb $N sh -c 'tty; until [ "$(stty size)" = "33 77" ]; do sleep 0.1; done; echo sized'`, want: `.*/dev/(pts/0|console).*sized`},
	{name: "environment", script: `run --rm --env=A=b bb $N sh -c 'echo $A $HOME'`, want: `b /root`},
	{name: "working directory", script: `run --rm --cwd=/tmp bb $N pwd`, want: `/tmp`},
	{name: "no pivot", script: `run --rm --no-pivot bb $N ls -d /data`, want: `/data`},
	{name: "memory", core: true, script: `run --rm --memory-limit=67108864 bb $N cat /proc/self/cgroup | sed -n 's/.*:memory:\|^0:://p' >c; run --detach --memory-limit=67108864 bb $N sleep 1000; e task exec --exec-id x $N true; p=$(e task ls | awk -v n=$N '$1 == n { print $2 }'); g=$(sed -n 's/.*:memory://p;s/^0:://p' /proc/$p/cgroup | head -n 1); cat /sys/fs/cgroup/memory$g/memory.limit_in_bytes /sys/fs/cgroup$g/memory.max 2>/dev/null`, want: `67108864`},
	{name: "out of memory", script: `run --rm --memory-limit=20971520 bb $N tail /dev/zero; echo $?`, want: `137`},
	{name: "cpu quota", script: `run --detach --cpu-quota=50000 --cpu-period=100000 bb $N sleep 1000; p=$(e task ls | awk -v n=$N '$1 == n { print $2 }'); g=$(sed -n 's/^[0-9]*:cpu://p;s/^0:://p' /proc/$p/cgroup | head -n 1); cat /sys/fs/cgroup/cpu$g/cpu.cfs_quota_us /sys/fs/cgroup$g/cpu.max 2>/dev/null`, want: `50000( 100000)?`},
	{name: "read-only", script: `run --rm --read-only bb $N touch /x`, want: `.*Read-only file system`},
	{name: "bind", script: `echo in >f; run --rm --mount=type=bind,src=$D,dst=/m,options=rbind:ro bb $N sh -c 'cat /m/f; touch /m/g'`, want: "in\n.*Read-only file system"},
	{name: "net of the host", script: `run --rm --net-host bb $N readlink /proc/self/ns/net >in; readlink /proc/self/ns/net | cmp - in && echo same`, want: `same`},
	{name: "joined namespace", script: quiet + `p=$(e task ls | awk -v n=$N '$1 == n { print $2 }'); run --rm --with-ns=pid:/proc/$p/ns/pid bb ${N}b readlink /proc/self/ns/pid >a; readlink /proc/$p/ns/pid | cmp - a && echo same`, want: `same`},
	{name: "capabilities", script: `run --rm --cap-add=CAP_NET_ADMIN bb $N grep CapEff /proc/self/status; run --rm --cap-drop=CAP_CHOWN bb $N grep CapEff /proc/self/status`, want: "CapEff:\t00000000a80435fb\nCapEff:\t00000000a80425fa"},
	{name: "no new privileges", script: `run --rm bb $N grep NoNewPrivs /proc/self/status; run --rm --allow-new-privs bb $N grep NoNewPrivs /proc/self/status`, want: "NoNewPrivs:\t1\nNoNewPrivs:\t0"},
	{name: "seccomp", core: true, script: `run --rm --seccomp bb $N grep Seccomp: /proc/self/status`, want: "Seccomp:\t2"},
	{name: "privileged", script: `run --rm --privileged bb $N sh -c 'grep Seccomp: /proc/self/status; mkdir /m && mount -t tmpfs x /m && echo mounted'`, want: "Seccomp:\t0\nmounted"},
	{name: "device", script: `run --rm --device=/dev/loop-control bb $N sh -c ': </dev/loop-control && echo opened'`, want: `opened`},
	{name: "user namespace", script: `run --rm --uidmap=0:1${N#n}000:65536 --gidmap=0:1${N#n}000:65536 bb $N cat /proc/self/uid_map | sed s/1${N#n}000/FIRST/`, want: `0\s+FIRST\s+65536`},
	{name: "pid file", script: `run --detach --pid-file=$D/p bb $N sleep 1000; tr '\0' ' ' </proc/$(cat p)/cmdline`, want: `sleep 1000`},
	{name: "no input and output", script: `run --detach --null-io bb $N sleep 1000; e task ls | awk -v n=$N '$1 == n { print $3 }'`, want: `RUNNING`},
	{name: "detached", script: quiet + `e task ls | awk -v n=$N '$1 == n { print $3 }'`, want: `RUNNING`},
	{name: "exec", core: true, script: quiet + `e task exec --exec-id x $N sh -c 'echo in; exit 5'; echo $?`, want: "in\n5"},
	{name: "exec user and directory", script: quiet + `e task exec --exec-id x --user 12:34 --cwd /tmp $N sh -c 'id -u; id -g; pwd'`, want: "12\n34\n/tmp"},
	{name: "exec tty", script: quiet + `tty 33 77 e task exec --exec-id x --tty $N sh -c 'tty; until [ "$(stty size)" = "33 77" ]; do sleep 0.1; done; echo sized'`, want: `.*/dev/pts/\d.*sized`},
	{name: "exec stdin", script: quiet + `printf 'a\nb\n' | e task exec --exec-id x $N head -n 2`, want: "a\nb"},
	{name: "exec not found", script: quiet + `e task exec --exec-id x $N nosuch; echo $?`, want: `.*executable file not found in \$PATH.*\n1`},
	{name: "pause", core: true, script: quiet + `e task pause $N; e task ls | awk -v n=$N '$1 == n { print $3 }'; e task resume $N; e task ls | awk -v n=$N '$1 == n { print $3 }'`, want: "PAUSED\nRUNNING"},
	{name: "signal", core: true, script: `run --detach bb $N sh -c 'trap "touch /usr1" USR1; trap "exit 42" TERM; touch /ready; while :; do sleep 0.1; done'; eventually e task exec --exec-id a$$ $N test -e /ready; e task kill -s USR1 $N; eventually e task exec --exec-id b$$ $N test -e /usr1; e task kill -s TERM $N; eventually sh -c 'e task ls | grep -q "^$N .*STOPPED"'; e task rm $N 2>&1 | grep -o 'exit code 42'`, want: `exit code 42`},
	{name: "kill all", script: quiet + `e task exec --detach --exec-id x $N sleep 6${N#n} >/dev/null; eventually pgrep -xf "sleep 6${N#n}" >/dev/null; e task kill -a -s KILL $N; eventually sh -c '! pgrep -xf "sleep 6${N#n}" >/dev/null' && echo gone`, want: `gone`},
	{name: "kill", script: quiet + `e task kill -s KILL $N; eventually sh -c 'e task ls | grep -q "^$N .*STOPPED"'; e task rm $N 2>&1 | grep -o 'exit code.*'`, want: `exit code 137.*`},
	{name: "processes", script: quiet + `e task ps $N | wc -l; e task exec --detach --exec-id x $N sleep 2000; e task ps $N | wc -l`, want: "2\n3"},
	{name: "metrics", script: quiet + `e task metrics $N | grep -c -e memory -e pids`, want: `[1-9][0-9]*`},
	{name: "delete while it runs", script: quiet + `e task rm $N >/dev/null 2>&1 || echo refused; e task rm -f $N >/dev/null 2>&1; e task ls -q | grep -cx $N`, want: "refused\n0"},
	{name: "20 at once", script: `for i in $(seq 20); do run --rm bb $N-$i echo $i & done | sort -n | tr '\n' ' '`, want: `1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20`},
}
