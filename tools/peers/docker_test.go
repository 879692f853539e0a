package peers

import "testing"

// dockerd of its own, with both runtimes. The client is Debian's, as the
// daemon is; so is containerd, for which a dockerd that starts it itself waits
// 15 s only.
var docker = engine{
	name:  "docker",
	needs: []string{"dockerd", "docker", "containerd", "ctr", "script", "iptables"},
	start: func(s *setting, root string) {
		s.Setenv("DOCKER_HOST", "unix:///run/docker.sock")
		args := []string{
			"--data-root", s.dir + "/data", "--exec-root", "/run/docker", "--pidfile", "/run/docker.pid",
			"--host", "unix:///run/docker.sock", "--containerd", containerdSocket, "--storage-driver", "overlay2",
		}
		for _, r := range []string{reference, candidate} {
			if r != "runc" { // it has that one by itself
				args = append(args, "--add-runtime", r+"="+path(s.T, r))
			}
		}
		s.serveContainerd()
		s.serve("e version", "dockerd", args...)
		s.must(`tar -C "$1" -c . | e import - bb`, root)
	},
	first:  `run --rm --net host bb true; run --rm bb echo started`, // it keeps a namespace of the host's
	e:      `exec /usr/bin/docker "$@"`,
	run:    `exec /usr/bin/docker run --runtime "$RT" "$@"`,
	create: `exec /usr/bin/docker create --runtime "$RT" "$@"`,
	remove: `exec /usr/bin/docker rm -f "$@"`,
	clean:  `c=$(e ps -aq --filter "name=^$N") && [ -z "$c" ] || remove -v $c >/dev/null`,
}

func TestDocker(t *testing.T) {
	through(t, docker, append(common, dockerRows...))
}

var dockerRows = []row{
	{name: "working directory is made", script: `run --rm -w /new/dir bb pwd`, want: `/new/dir`},
	{name: "update memory", core: true, script: sleeper + `e update -m 64m --memory-swap 128m $N >/dev/null; e exec $N limit memory/memory.limit_in_bytes memory.max`, want: `67108864`},
	{name: "update cpus", script: sleeper + `e update --cpus 0.5 $N >/dev/null; e exec $N limit cpu/cpu.cfs_quota_us cpu.max`, want: `50000( 100000)?`},
	{name: "update pids", script: sleeper + `e update --pids-limit 30 $N >/dev/null; e exec $N limit pids/pids.max pids.max`, want: `30`},
	{name: "update cpuset and shares", script: sleeper + `e update --cpuset-cpus 0 --cpu-shares 512 $N >/dev/null; e exec $N sh -c 'limit cpuset/cpuset.cpus cpuset.cpus; limit cpu/cpu.shares cpu.weight'`, want: "0\n(512|20|59)"},
	{name: "update leaves the rest alone", script: `run -d -m 64m --pids-limit 30 --name $N bb sleep 1000 >/dev/null; e update --cpu-shares 512 $N >/dev/null; e exec $N sh -c 'limit memory/memory.limit_in_bytes memory.max; limit pids/pids.max pids.max'`, want: "67108864\n30"},
	{name: "update of nothing", script: sleeper + `e update --restart no $N >/dev/null; e exec $N echo runs`, want: `runs`},
	{name: "update while it is paused", script: sleeper + `e pause $N >/dev/null; e update -m 64m --memory-swap 64m $N >/dev/null; e unpause $N >/dev/null; e exec $N limit memory/memory.limit_in_bytes memory.max`, want: `67108864`},
	{name: "kill while it is paused", script: sleeper + `e pause $N >/dev/null; e kill $N >/dev/null; e wait $N`, want: `137`},
	{name: "stop while it is paused", script: sleeper + `e pause $N >/dev/null; e stop -t 1 $N >/dev/null; e wait $N`, want: `137`},
	{name: "domain name", script: `run --rm --domainname example.net bb cat /proc/sys/kernel/domainname`, want: `example.net`},
	{name: "port 80 of a user", script: `run --rm --net none -u app bb sh -c 'timeout 1 nc -l -p 80; echo $?' 2>/dev/null`, want: `143`},
	{name: "no oom killer", script: `run --rm -m 64m --oom-kill-disable bb sh -c 'limit memory/memory.oom_control memory.max' 2>/dev/null | head -n 1`, want: `oom_kill_disable 1|67108864`},
	{name: "health check", script: `run -d --name $N --health-cmd 'test -e /etc/passwd' --health-interval 1s bb sleep 1000 >/dev/null; eventually sh -c '[ $(e inspect -f "{{.State.Health.Status}}" $N) = healthy ]' && echo healthy`, want: `healthy`},
	{name: "health check that fails", script: `run -d --name $N --health-cmd false --health-interval 1s --health-retries 1 bb sleep 1000 >/dev/null; eventually sh -c '[ $(e inspect -f "{{.State.Health.Status}}" $N) = unhealthy ]' && echo unhealthy`, want: `unhealthy`},
	{name: "unmasked paths", script: `run --rm --security-opt systempaths=unconfined bb sh -c 'test -e /proc/timer_list && grep -c " /proc/" /proc/mounts'`, want: `0`},
	{name: "network between two", script: `e network create net$N >/dev/null; run -d --net net$N --name $N bb sleep 1000 >/dev/null; run --rm --net net$N bb ping -c 1 -W 5 $N | grep -c '1 packets received'; remove $N >/dev/null; e network rm net$N >/dev/null`, want: `1`},
	{name: "network connected later", script: `e network create net$N >/dev/null; run -d --name $N bb sleep 1000 >/dev/null; e network connect net$N $N; e exec $N ip -o -4 addr | grep -c eth; remove $N >/dev/null; e network rm net$N >/dev/null`, want: `2`},
}
