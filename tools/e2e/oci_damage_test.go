package e2e

import (
	"fmt"
	"strings"
	"testing"

	"shocker.sh/lib/testkit"
)

// TestOCIDamaged: whatever is missing or wrong of what is kept of a container,
// it says so, the others can be listed, and delete --force takes all.
func TestOCIDamaged(t *testing.T) {
	onOCI(t, func(t *testing.T, h *testkit.Host, oci func(string) testkit.Result) {
		for _, test := range []struct{ damage, state, start string }{
			{`: >oci/one/state.json`, "damaged", "damaged"},
			{`echo '[]' >oci/one/state.json`, "damaged", "damaged"},
			{`echo '{}' >oci/one/state.json`, "damaged", "damaged"},
			{`sed -i s/one/two/ oci/one/state.json`, "damaged", "damaged"},
			{`rm oci/one/state.json`, "container does not exist", "container does not exist"},
			{`rm oci/one/config.json`, "config.json", "config.json"},
			{`: >oci/one/config.json`, "config.json", "config.json"},
			// What waits cannot be let go any more, as for runc without its exec.fifo.
			{`rm oci/one/table`, "running", "already running"},
			{`rm oci/one/hold`, "running", "already running"},
			{`rm oci/one/status`, "running", "already running"},
			{`: >oci/one/table`, "running", "already running"},
			{`rm oci/one/lock`, "created", ""},
		} {
			r := oci(`oci create -b bundle one && oci create -b bundle other && ` + test.damage + `
				(oci state one | jq -r .status) 2>&1; echo --; oci list -q 2>/dev/null; echo --; oci start one 2>&1; echo --; oci delete -f one && oci delete -f other`)
			got := strings.Split(r.Stdout, "--\n")
			if r.Code != 0 || len(got) != 4 || !strings.Contains(got[0]+r.Stderr, test.state) ||
				!strings.Contains(got[1], "other") || !strings.Contains(got[2], test.start) {
				t.Errorf("%s: %+v; want %q and %q", test.damage, r, test.state, test.start)
			}
		}
	})
}

// TestOCIForeign: what somebody else has put below --root is none of ours.
func TestOCIForeign(t *testing.T) {
	onOCI(t, func(t *testing.T, h *testkit.Host, oci func(string) testkit.Result) {
		for script, want := range map[string]string{
			`oci list -q`:            "one\n",
			`oci state file`:         "file: container does not exist",
			`oci state link`:         "link: container does not exist",
			`oci delete -f file`:     "",
			`oci delete -f link`:     "",
			`oci delete -f dangling`: "",
			`oci state one | jq -r .status; ls oci | wc -l`: "created\n5\n",
			// A log that nobody reads is not waited for.
			`mkfifo fifo; shocker-oci --log fifo --root oci state one`: "open the log",
		} {
			r := oci(`oci create -b bundle one; : >oci/file; mkdir -p 'oci/a b'; ln -s one oci/link; ln -s nowhere oci/dangling
				` + script + `; rm -r oci/file 'oci/a b' oci/link oci/dangling; oci delete -f one`)
			if got := r.Stdout + r.Stderr; !strings.Contains(got, want) || want == "" && got != "" {
				t.Errorf("%s: %+v; want %q", script, r, want)
			}
		}
	})
}

// TestOCITwoAtOnce: of two commands on one container each does its work or
// says why not, and a delete --force at last leaves nothing.
func TestOCITwoAtOnce(t *testing.T) {
	onOCI(t, func(t *testing.T, h *testkit.Host, oci func(string) testkit.Result) {
		// A delete --force waits for a create, and for no longer than it is told to.
		ok(t, oci(`edit --arg d $PWD '.hooks.prestart = [{path: "/bin/sh", args: ["sh", "-c", ": >" + $d + "/reached; read x <" + $d + "/go"]}]'
			mkfifo go; oci create -b bundle one & create=$!; wait_for test -e reached
			shocker-oci --root oci delete -f one >out 2>&1 & delete=$!
			kill $delete; wait $delete && exit 1; [ -d oci/one ] || exit 1
			oci delete -f one & delete=$!; echo >go; wait $create && wait $delete`))
		script := `edit 'del(.hooks)'; `
		for i := range 10 {
			script += fmt.Sprintf(`oci create -b bundle one 2>/dev/null & sleep 0.0%d; oci delete -f one & oci create -b bundle one 2>/dev/null & oci delete -f one & wait; oci delete -f one || exit 1; [ -z "$(ls oci)" ] || exit 1
			`, i)
		}
		ok(t, oci(script))
	})
}

// TestOCIExecEnds: whatever step of an exec finds out that the container ends, it
// is told in the words that engines know.
func TestOCIExecEnds(t *testing.T) {
	onOCI(t, func(t *testing.T, h *testkit.Host, oci func(string) testkit.Result) {
		for range 12 {
			r := oci(`oci run -d -b bundle one; oci delete -f one & for i in 1 2 3 4 5 6; do oci exec one true & done; wait`)
			for line := range strings.Lines(r.Stderr) {
				line = strings.TrimSpace(line)
				if line != "shocker-oci: cannot exec in a stopped container" && line != "shocker-oci: one: container does not exist" {
					t.Errorf("exec in a container that is deleted says %q", line)
				}
			}
		}
	})
}

// TestOCIFrozenAbove: a process that cannot die is not waited for without end.
func TestOCIFrozenAbove(t *testing.T) {
	onOCI(t, func(t *testing.T, h *testkit.Host, oci func(string) testkit.Result) {
		r := oci(`edit '.linux.cgroupsPath = "/above/one"'; oci run -d -b bundle one
			freeze() { for f in /sys/fs/cgroup/freezer/above/freezer.state /sys/fs/cgroup/above/cgroup.freeze; do [ ! -e $f ] || echo $1 >$f; done; }
			if [ -e /sys/fs/cgroup/above ]; then on=1 off=0; else on=FROZEN off=THAWED; fi
			freeze $on; timeout 60 shocker-oci --root oci delete -f one; echo $?; freeze $off; oci delete -f one`)
		// The process of cgroup v2 dies frozen.
		v2 := r.Stdout == "0\n" && r.Stderr == ""
		if r.Code != 0 || !v2 && (r.Stdout != "1\n" || !strings.Contains(r.Stderr, "has not ended")) {
			t.Errorf("delete --force below a frozen cgroup: %+v", r)
		}
	})
}

// TestOCIFrozenBelow: a program that has frozen itself, in a cgroup that it has made,
// is killed all the same.
func TestOCIFrozenBelow(t *testing.T) {
	onOCI(t, func(t *testing.T, h *testkit.Host, oci func(string) testkit.Result) {
		freeze := `if cd /sys/fs/cgroup/freezer 2>/dev/null; then on=FROZEN file=freezer.state; else cd /sys/fs/cgroup; on=1 file=cgroup.freeze; fi
			mkdir in; echo 1 >in/cgroup.procs; (echo $on >in/$file); sleep 1000`
		for script, want := range map[string]string{
			`oci kill one KILL; wait_for is one stopped; oci delete one`: "",
			`oci kill --all one KILL; wait_for is one stopped`:           "",
			`oci delete -f one; oci state one`:                           "one: container does not exist",
		} {
			r := oci(`edit '.mounts += [{destination: "/sys/fs/cgroup", type: "cgroup", source: "cgroup", options: ["rw"]}]'
				program sh -c ` + quote(freeze) + `; oci run -d -b bundle one
				frozen() { grep -qx 'FROZEN\|frozen 1' $(find /sys/fs/cgroup/ -path '*/one/in/freezer.state' -o -path '*/one/in/cgroup.events'); }
				wait_for frozen; ` + script + `
				find /sys/fs/cgroup/ -path '*/one/in/freezer.state' | while read f; do echo THAWED >$f; done # if it lives, it can go now
				oci delete -f one`)
			if got := r.Stdout + r.Stderr; !strings.Contains(got, want) || want == "" && got != "" {
				t.Errorf("%s: %+v; want %q", script, r, want)
			}
		}
	})
}

// TestOCIFrozenAgain: others in the container freeze its program again and again,
// and it dies of the first kill.
func TestOCIFrozenAgain(t *testing.T) {
	onOCI(t, func(t *testing.T, h *testkit.Host, oci func(string) testkit.Result) {
		freeze := `if cd /sys/fs/cgroup/freezer 2>/dev/null; then on=FROZEN file=freezer.state; else cd /sys/fs/cgroup; on=1 file=cgroup.freeze; fi
			mkdir in; for i in 1 2 3; do (while :; do echo $on >in/$file; done) & done; echo 1 >in/cgroup.procs; sleep 1000`
		r := oci(`edit '.mounts += [{destination: "/sys/fs/cgroup", type: "cgroup", source: "cgroup", options: ["rw"]}]'
			program sh -c ` + quote(freeze) + `
			frozen() { grep -qx 'FROZEN\|frozen 1' $(find /sys/fs/cgroup/ -path '*/one/in/freezer.state' -o -path '*/one/in/cgroup.events'); }
			for i in 1 2 3 4 5 6; do oci run -d -b bundle one; wait_for frozen; oci kill one KILL
				n=0; until is one stopped || [ $n = 50 ]; do n=$((n + 1)); sleep 0.1; done; oci delete one; oci delete -f one; done`)
		if r.Code != 0 || r.Stdout+r.Stderr != "" {
			t.Errorf("killed while it is frozen again: %+v", r)
		}
	})
}

// TestOCICgroupRemoved: a container whose cgroup somebody has removed can be
// killed all the same.
func TestOCICgroupRemoved(t *testing.T) {
	onOCI(t, func(t *testing.T, h *testkit.Host, oci func(string) testkit.Result) {
		r := oci(`oci run -d -b bundle one; pid=$(oci state one | jq .pid)
			find /sys/fs/cgroup/ -type d -name one | while read d; do
				to=${d%/*}
				if [ -e $d/cgroup.kill ]; then to=$to/elsewhere; mkdir $to; fi # beside controllers of v2 is no process
				echo $pid >$to/cgroup.procs && rmdir $d || exit 1
			done
			oci kill --all one KILL && wait_for is one stopped && oci kill --all one KILL && oci delete one
			find /sys/fs/cgroup/ -depth -type d -name elsewhere -exec rmdir {} \;`)
		if r.Code != 0 || r.Stdout+r.Stderr != "" {
			t.Errorf("kill --all without a cgroup: %+v", r)
		}
	})
}

// TestOCIInterruptedInFrozen: an exec in a paused container ends when it is told
// to, though its process cannot yet.
func TestOCIInterruptedInFrozen(t *testing.T) {
	onOCI(t, func(t *testing.T, h *testkit.Host, oci func(string) testkit.Result) {
		r := oci(`oci run -d -b bundle one; oci pause one
			shocker-oci --root oci exec --ignore-paused one true >/dev/null 2>&1 & exec=$!
			two() { [ $(oci ps -f json one | jq length) = 2 ]; }
			wait_for two; kill $exec; timeout 60 tail --pid=$exec -f /dev/null || kill -9 $exec
			wait $exec; status=$?; [ $status = 130 ] || echo "exec: status $status"
			oci resume one; one() { [ $(oci ps -f json one | jq length) = 1 ]; }; wait_for one; oci delete -f one`)
		if r.Code != 0 || r.Stdout+r.Stderr != "" {
			t.Errorf("an exec that is interrupted in a frozen cgroup: %+v", r)
		}
	})
}
