package peers

import "testing"

var podman = engine{
	name:  "podman",
	needs: []string{"podman", "script", "iptables"},
	start: func(s *setting, root string) {
		s.must(`tar -C "$1" -c . | RTPATH=$(command -v "$2") DIR=$3 e import - bb`, root, reference, s.dir)
	},
	first:  `run --rm bb echo started`,
	e:      `exec podman --root "$DIR/data" --runroot /run/podman --cgroup-manager cgroupfs --events-backend file --tmpdir /run/podman-tmp --runtime "$RTPATH" "$@"`,
	run:    `exec e run "$@"`,
	create: `exec e create "$@"`,
	remove: `exec e rm -f -t 0 "$@"`,
	clean:  `c=$(e ps -aq --filter "name=^$N") && [ -z "$c" ] || remove -v $c >/dev/null`,
}

func TestPodman(t *testing.T) {
	through(t, podman, append(common, podmanRows...))
}

var podmanRows = []row{}
