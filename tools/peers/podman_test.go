package peers

import "testing"

var podman = engine{
	name:  "podman",
	needs: []string{"podman", "script", "iptables"},
	start: func(s *setting, root string) {
		s.must(`tar -C "$1" -c . | RTPATH=$(command -v "$2") DIR=$3 e import - bb`, root, reference, s.dir)
	},
	// netavark 1.4 keeps the chain of a published port that goes before the
	// network's other containers, and podman a mount of its images on themselves,
	// if two of it end at once.
	first: `run -d --name $N bb sleep 1000 >/dev/null; run --rm -p 127.0.0.1::80 bb echo started; remove $N >/dev/null
		cd $DIR/data/overlay; mountpoint -q . || mount --bind . .`,
	e:      `exec podman --root "$DIR/data" --runroot /run/podman --cgroup-manager cgroupfs --events-backend file --tmpdir /run/podman-tmp --runtime "$RTPATH" "$@"`,
	run:    `exec e run "$@"`,
	create: `exec e create "$@"`,
	remove: `exec e rm -f -t 0 "$@"`,
	clean:  `c=$(e ps -aq --filter "name=^$N") && [ -z "$c" ] || remove -v $c >/dev/null`,
}

func TestPodman(t *testing.T) {
	through(t, podman, append(common, podmanRows...))
}

var podmanRows = []row{
	{name: "user namespace", script: `run --rm --uidmap 0:100000:65536 bb sh -c 'cat /proc/self/uid_map; touch /x; chown app /x; stat -c %U /x /etc'`, want: "0\\s+100000\\s+65536\napp\nroot"},
	{name: "user namespace and exec", script: `run -d --name $N --uidmap 0:100000:65536 bb sleep 1000 >/dev/null; e exec -u app $N id -u; stat -c %u /proc/$(e inspect -f '{{.State.Pid}}' $N)`, want: "1000\n100000"},
	{name: "preserved descriptors", script: `echo kept >f; run --rm --preserve-fds 1 bb sh -c 'cat <&3' 3<f`, want: `kept`},
	{name: "exec with preserved descriptors", script: sleeper + `echo kept >f; e exec --preserve-fds 1 $N sh -c 'cat <&3' 3<f`, want: `kept`},
	{ // podman 4.3 leaves the pod's cgroup in two hierarchies of v1
		name:   "pod",
		script: `p=$(e pod create --name p$N); run -d --pod p$N --name $N bb sleep 1000 >/dev/null; a=$(e exec $N readlink /proc/self/ns/net); b=$(run --rm --pod p$N bb readlink /proc/self/ns/net); [ "$a" = "$b" ] && echo same; e pod rm -f -t 0 p$N >/dev/null; rmdir /sys/fs/cgroup/*/libpod_parent/$p 2>/dev/null`,
		want:   `same`,
	},
	{name: "init and start", script: `create --name $N bb echo hi >/dev/null; e init $N >/dev/null; e inspect -f '{{.State.Status}}' $N; e start -a $N`, want: "initialized\nhi"},
	{name: "root of a directory", script: `mkdir -p r/bin; cp $(command -v busybox) r/bin; run --rm --rootfs $D/r /bin/busybox sh -c 'echo $$; busybox ls /dev/null; echo kept >/f'; cat r/f`, want: "1\n/dev/null\nkept"},
	{name: "for systemd", script: `run --rm --systemd always bb sh -c 'for d in /run /run/lock /tmp; do grep -c " $d tmpfs rw" /proc/mounts; done; test -w /sys/fs/cgroup/systemd || test -w /sys/fs/cgroup && echo writable'`, want: "1\n1\n1\nwritable"},
	{ // on v2 podman 4.3 forbids all of the pod's processes to open devices, and runc starts nothing
		name:   "play kube",
		script: `printf 'apiVersion: v1\nkind: Pod\nmetadata: {name: p%s}\nspec:\n  restartPolicy: Never\n  containers:\n  - name: c\n    image: localhost/bb:latest\n    imagePullPolicy: Never\n    command: [/bin/sh, -c, "echo played; sleep 1000"]\n    resources: {limits: {memory: 64Mi}}\n    securityContext: {runAsUser: 1000, readOnlyRootFilesystem: true}\n' $N >k.yaml; e play kube k.yaml >/dev/null 2>&1 && eventually sh -c 'e logs p$N-c | grep played' && e exec p$N-c /bin/sh -c 'id -u; cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>&-; touch /x 2>&1 | grep -o Read-only'; p=$(e pod ps -q --no-trunc --filter name=p$N); e play kube --down k.yaml >/dev/null 2>&1; for g in /sys/fs/cgroup/*/libpod_parent/$p /sys/fs/cgroup/libpod_parent/$p; do rmdir $g/conmon $g; done 2>/dev/null`,
		want:   "played\n1000\n67108864\nRead-only",
	},
	{name: "umask of its own", script: `run --rm --umask 0077 bb sh -c umask`, want: `0077`},
	{name: "unmasked paths", script: `run --rm --security-opt unmask=ALL bb grep -c ' /proc/' /proc/mounts`, want: `0`},
	{name: "one more masked path", script: `run --rm --security-opt mask=/etc/passwd bb wc -c /etc/passwd`, want: `0 /etc/passwd`},
	{name: "pid file", script: `run -d --pidfile $D/p --name $N bb sleep 1000 >/dev/null; tr '\0' ' ' </proc/$(cat p)/cmdline`, want: `sleep 1000`},
	{
		name:   "hook",
		script: `mkdir h; echo '{"version":"1.0.0","hook":{"path":"/bin/sh","args":["sh","-c","cat >'$D'/state"]},"when":{"always":true},"stages":["prestart"]}' >h/a.json; e --hooks-dir $D/h run --rm bb true; grep -c '"pid":[1-9]' state`,
		want:   `1`,
	},
	{name: "update", script: sleeper + `e update --cpus 0.5 --memory 64m $N >/dev/null; e exec $N sh -c 'limit cpu/cpu.cfs_quota_us cpu.max; limit memory/memory.limit_in_bytes memory.max'`, want: "50000( 100000)?\n67108864"},
	{name: "health check", script: `run -d --name $N --health-cmd 'test -e /etc/passwd' --health-interval disable bb sleep 1000 >/dev/null; e healthcheck run $N; echo $?`, want: `0`},
}
