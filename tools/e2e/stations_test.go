package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"shocker.sh/lib/testkit"
)

// stations are programs of others, each in the place of one of ours.
var stations = map[string]string{
	"shocker-spec": `#!/bin/sh
set -e
exec shocker spec "$@"
`,
	// A copy of the image's directory, owned by the container's root.
	"shocker-subvol": `#!/bin/bash
set -e
record=$(cat)
get() { printf %s "$record" | jq -r "$1"; }
id=$(get '.annotations["sh.shocker.id"]')
root=$TMPDIR/copies/$id
case $1 in
up)
	top=$(jq -r '.layers[-1]' "$SHOCKER_ROOT/images/$(get '.annotations["sh.shocker.image"]')/image.json")
	mkdir -p "$TMPDIR/copies"
	chmod 711 "$TMPDIR/copies"
	cp -a "$SHOCKER_ROOT/layers/$top" "$root"
	first=$(get '.linux.uidMappings[0].hostID // 0')
	chown -R -h "$first:$first" "$root"
	printf %s "$record" | jq -c --arg root "$root" '.root.path = $root'
	;;
down) rm -rf "$root" ;;
esac
`,
	"shocker-net": `#!/bin/sh
set -e
record=$(cat)
id=$(printf %s "$record" | jq -r '.annotations["sh.shocker.id"]')
case $1 in
up)
	ip netns add "$id"
	printf %s "$record" | jq -c --arg path "/run/netns/$id" '
		.linux.namespaces |= map(if .type == "network" then .path = $path else . end)'
	;;
down) [ ! -e "/run/netns/$id" ] || ip netns del "$id" ;;
esac
`,
	"shocker-cg": `#!/bin/sh
set -e
record=$(cat)
id=$(printf %s "$record" | jq -r '.annotations["sh.shocker.id"]')
cg=/sys/fs/cgroup
case $1 in
up)
	if [ -e $cg/cgroup.controllers ]; then
		echo +memory +pids >$cg/cgroup.subtree_control
		mkdir "$cg/$id"
		echo 200000000 >"$cg/$id/memory.max"
	else
		for c in memory pids freezer; do mkdir "$cg/$c/$id"; done
		echo 200000000 >"$cg/memory/$id/memory.limit_in_bytes"
	fi
	printf %s "$record" | jq -c --arg path "/$id" '.linux.cgroupsPath = $path'
	;;
down)
	for d in $cg/$id $cg/*/$id; do
		[ ! -d "$d" ] || rmdir "$d"
	done
	;;
esac
`,
	// Any OCI runtime; here the one of Debian's package.
	"shocker-run": `#!/bin/sh
set -e
if [ "$1" = down ]; then
	id=$(jq -r '.annotations["sh.shocker.id"]')
	runc delete -f "$id" 2>/dev/null || true
	rm -rf "$TMPDIR/bundles/$id"
	exit
fi
record=$(cat)
id=$(printf %s "$record" | jq -r '.annotations["sh.shocker.id"]')
bundle=$TMPDIR/bundles/$id
mkdir -p "$bundle"
printf %s "$record" >"$bundle/config.json"
exec runc run --bundle "$bundle" "$id" <&3
`,
}

// TestPipelineReplacedStation puts another's program in the place of each station in
// turn, by SHOCKER_PATH and in a pasted pipeline: the session still works,
// files inside have the right owners, and nothing is left.
func TestPipelineReplacedStation(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		testkit.Requires(t, "runc", "jq")
		h.Bin(t)
		// runc keeps its state here, and ip its namespaces.
		ok(t, h.Sh(t, "ip netns add x; ip netns del x; mkdir -p /run/runc"))
		for name, script := range stations {
			dir := filepath.Join(h.Dir, "parts-"+name)
			write(t, filepath.Join(dir, name), script)
			for _, pasted := range []bool{false, true} {
				what := fmt.Sprintf("%s replaced, pasted %v", name, pasted)
				h.Must(t, "gc")
				before := h.Snapshot(t)
				command := image + ` sh -c 'stat -c %u:%g /bin/busybox; id -u; touch /tmp/x && stat -c %u /tmp/x; exit 7'`
				var r testkit.Result
				if pasted {
					line := ok(t, h.Sh(t, "shocker run -n -i "+command))
					line = strings.Replace(line, name+" ", filepath.Join(dir, name)+" ", 1)
					r = h.Sh(t, line)
				} else {
					r = h.Sh(t, "SHOCKER_PATH="+dir+" shocker run "+command)
				}
				if r.Code != 7 || r.Stdout != "0:0\n0\n0\n" {
					t.Errorf("%s: %+v; want status 7 and everything root's", what, r)
				}
				all := ids(t, h)
				if len(all) != 1 {
					t.Fatalf("%s: the containers are %q", what, all)
				}
				if pasted && name != "shocker-spec" {
					// Whoever pastes a foreign stage undoes it as well.
					ok(t, h.Sh(t, "shocker inspect "+all[0]+" | jq -c .record | "+filepath.Join(dir, name)+" down >/dev/null"))
				}
				h.Must(t, "rm", all[0])
				h.Settle(t, before, "files")
			}
			parts := ok(t, h.Sh(t, "SHOCKER_PATH="+dir+" shocker parts"))
			if want := name + "\t" + filepath.Join(dir, name) + "\n"; !strings.Contains(parts, want) {
				t.Errorf("shocker parts: %s; want %s in it", parts, want)
			}
		}
		if left := ok(t, h.Sh(t, "ls /run/runc $TMPDIR/copies $TMPDIR/bundles /run/netns")); strings.Contains(left, "ps_") {
			t.Errorf("left behind: %s", left)
		}
	})
}

// TestUntrustedStation: what somebody besides root could have put there is not
// executed, and not passed over either.
func TestUntrustedStation(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		dir := filepath.Join(h.Dir, "parts")
		program := write(t, filepath.Join(dir, "shocker-net"), "#!/bin/sh\ntouch "+h.Dir+"/executed\n")
		before := warmUp(t, h, image)
		for _, change := range []string{"chmod 777 " + dir, "chmod 722 " + program, "chown 1000 " + program} {
			ok(t, h.Sh(t, change))
			for _, command := range []string{"run --rm " + image + " true", "run -n " + image + " true", "parts"} {
				r := h.Sh(t, "SHOCKER_PATH="+dir+" shocker "+command)
				if r.Code == 0 || !strings.Contains(r.Stderr, program) || !strings.Contains(r.Stderr, "not safe") {
					t.Errorf("%s, then %s: %+v", change, command, r)
				}
			}
			ok(t, h.Sh(t, "chmod 755 "+dir+" "+program+"; chown 0 "+program))
		}
		if _, err := os.Stat(h.Dir + "/executed"); err == nil {
			t.Error("the program was executed")
		}
		h.Settle(t, before, "files")
	})
}

// TestStationThatFails: the composer takes back what the others did.
func TestStationThatFails(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		before := warmUp(t, h, image)
		for _, script := range []string{
			"#!/bin/sh\nexit 3\n",
			"#!/bin/sh\ncat >/dev/null\n", // no record
			"#!/bin/sh\nsed 's/ps_[0-9]*/ps_1/g'\n",
		} {
			dir := filepath.Join(h.Dir, "parts")
			write(t, filepath.Join(dir, "shocker-cg"), script)
			r := h.Sh(t, "SHOCKER_PATH="+dir+" shocker run "+image+" true")
			if r.Code != 125 || !strings.Contains(r.Stderr, "shocker-cg") {
				t.Errorf("a stage %q: %+v; want status 125", script, r)
			}
			h.Settle(t, before, "files")
		}
	})
}
