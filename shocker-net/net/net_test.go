package net_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/testkit"
)

// record is one that another's first stage could have made, with ids of its
// own.
func record(id string) string {
	return fmt.Sprintf(`{"ociVersion":"1.0.2","hostname":%[1]q,"annotations":{"sh.shocker.id":%[1]q},"linux":{`+
		`"uidMappings":[{"containerID":0,"hostID":1879048192,"size":65536}],`+
		`"gidMappings":[{"containerID":0,"hostID":1879048192,"size":65536}],`+
		`"namespaces":[{"type":"user"},{"type":"network"},{"type":"mount"}]}}`, id)
}

// net runs shocker-net with records on its input.
func net(t *testing.T, h *testkit.Host, args string, ids ...string) testkit.Result {
	t.Helper()
	var in strings.Builder
	for _, id := range ids {
		in.WriteString(record(id) + "\n")
	}
	if err := os.WriteFile("records", []byte(in.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return h.Sh(t, "shocker-net "+args+" <records")
}

func must(t *testing.T, r testkit.Result) string {
	t.Helper()
	if r.Code != 0 {
		t.Fatalf("status %d\nstdout: %s\nstderr: %s", r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

func on(t *testing.T, f func(t *testing.T, h *testkit.Host)) {
	t.Helper()
	testkit.Run(t, testkit.Options{NoStore: true}, func(t *testing.T, h *testkit.Host) {
		t.Chdir(h.Dir)
		f(t, h)
	})
}

func TestUpCheckDown(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host) {
		for _, mode := range []string{"bridge", "none", "host"} {
			before := h.Snapshot(t)
			out := must(t, net(t, h, "up --network "+mode, "ps_42045"))
			if err := os.WriteFile("out", []byte(out), 0o600); err != nil {
				t.Fatal(err)
			}
			got := must(t, h.Sh(t, `jq -r '.linux.namespaces[]|.type+"="+(.path//"")' out; jq -r '.annotations["sh.shocker.address"]//"no address"' out`))
			want := map[string]string{
				"bridge": "user=/run/shocker/ps_42045/ns/user\nnetwork=/run/shocker/ps_42045/ns/net\nmount=\n10.0.0.2\n",
				"none":   "user=/run/shocker/ps_42045/ns/user\nnetwork=/run/shocker/ps_42045/ns/net\nmount=\nno address\n",
				"host":   "user=/run/shocker/ps_42045/ns/user\nmount=\nno address\n",
			}[mode]
			if got != want {
				t.Errorf("%s: the record has %q; want %q", mode, got, want)
			}
			for range 2 {
				if r := h.Sh(t, "shocker-net check <out >/dev/null"); r.Code != 0 {
					t.Errorf("%s: check: %s", mode, r.Stderr)
				}
			}
			if r := h.Sh(t, "shocker-net up <out >/dev/null"); r.Code != 1 || !strings.Contains(r.Stderr, "there already") {
				t.Errorf("%s: up twice: %+v; want it refused", mode, r)
			}
			if r := h.Sh(t, "shocker-net check <out >/dev/null"); r.Code != 0 {
				t.Errorf("%s: a second up that was refused has undone the first: %s", mode, r.Stderr)
			}
			for range 2 {
				must(t, h.Sh(t, "shocker-net down <out >/dev/null"))
			}
			if r := h.Sh(t, "shocker-net check <out"); r.Code != 1 || !strings.Contains(r.Stderr, "is missing") {
				t.Errorf("%s: check after down: %+v", mode, r)
			}
			must(t, h.Sh(t, "shocker-net teardown; rmdir /run/shocker/ps_42045/* /run/shocker/ps_42045; umount /run/shocker; rmdir /run/shocker"))
			h.Settle(t, before)
		}
	})
}

func TestInside(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host) {
		must(t, net(t, h, "up", "ps_1", "ps_2"))
		for _, test := range []struct{ script, want string }{
			{"ip -br addr show lo | awk '{print $2, $3}'", "UNKNOWN 127.0.0.1/8\n"},
			{"ip -4 -br addr show eth0 | awk '{print $3}'", "10.0.0.2/24\n"},
			{"ip route show default", "default via 10.0.0.1 dev eth0 \n"},
			{"cat /proc/sys/net/ipv4/ip_unprivileged_port_start", "0\n"},
			// A neighbour, the bridge, and itself answer.
			{"for a in 10.0.0.1 10.0.0.2 10.0.0.3; do busybox ping -c 1 -W 5 $a | grep -c ' 0% packet loss'; done", "1\n1\n1\n"},
		} {
			if got := must(t, h.Sh(t, "shocker-net exec ps_1 -- sh -c '"+strings.ReplaceAll(test.script, "'", `'\''`)+"'")); got != test.want {
				t.Errorf("%s: %q; want %q", test.script, got, test.want)
			}
		}
	})
}

// outside is a second network namespace beyond a veth pair, which knows no
// route to the containers.
const outside = `
ip netns add outside
ip link add up0 type veth peer name up1 netns outside
ip addr add 192.0.2.1/24 dev up0; ip link set up0 up
ip -n outside addr add 192.0.2.2/24 dev up1; ip -n outside link set up1 up; ip -n outside link set lo up
`

func TestNAT(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host) {
		must(t, h.Sh(t, outside))
		must(t, net(t, h, "up", "ps_1"))
		must(t, h.Sh(t, "shocker-net exec ps_1 -- busybox ping -c 1 -W 5 192.0.2.2"))
		// Whoever has a route still does not get to what is not published.
		must(t, h.Sh(t, "ip -n outside route add 10.0.0.0/24 via 192.0.2.1"))
		if r := h.Sh(t, "ip netns exec outside busybox ping -c 1 -W 1 10.0.0.2"); r.Code == 0 {
			t.Error("a container was reached from outside")
		}
		// The rules are gone: the next container brings them back.
		must(t, h.Sh(t, "ip -n outside route del 10.0.0.0/24; nft flush ruleset"))
		if r := h.Sh(t, "shocker-net exec ps_1 -- busybox ping -c 1 -W 1 192.0.2.2"); r.Code == 0 {
			t.Error("it was NAT of something else that let us through")
		}
		must(t, net(t, h, "up", "ps_2"))
		must(t, h.Sh(t, "shocker-net exec ps_1 -- busybox ping -c 1 -W 5 192.0.2.2"))
	})
}

// TestOthersDrop: a host whose FORWARD chain drops, as Docker's, works, shows
// our rules to iptables, and is as before afterwards.
func TestOthersDrop(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host) {
		must(t, h.Sh(t, outside))
		for _, docker := range []bool{false, true} {
			rules := "iptables -P FORWARD DROP; iptables -A FORWARD -i eth9 -j ACCEPT"
			chain := "FORWARD"
			if docker {
				rules += "; iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN; iptables -I FORWARD -j DOCKER-USER"
				chain = "DOCKER-USER"
			}
			must(t, h.Sh(t, rules))
			before := must(t, h.Sh(t, "iptables -S"))
			must(t, net(t, h, "up", "ps_1"))
			must(t, h.Sh(t, "shocker-net exec ps_1 -- busybox ping -c 1 -W 5 192.0.2.2"))
			now := must(t, h.Sh(t, "iptables -S "+chain))
			for _, rule := range []string{"-i bridge0 -j ACCEPT", "-o bridge0 -j ACCEPT"} {
				if !strings.Contains(now, "-A "+chain+" "+rule) {
					t.Errorf("iptables shows %q; want %q in it", now, rule)
				}
			}
			must(t, net(t, h, "down", "ps_1"))
			must(t, h.Sh(t, "shocker-net teardown"))
			if after := must(t, h.Sh(t, "iptables -S")); after != before {
				t.Errorf("before: %s\nafter: %s", before, after)
			}
		}
	})
}

const (
	legacyDrop   = "iptables-legacy -P FORWARD DROP; "
	legacyDocker = "iptables-legacy -N DOCKER-USER; iptables-legacy -A DOCKER-USER -j RETURN; iptables-legacy -I FORWARD -j DOCKER-USER; "

	ruleIn  = " -i bridge0 -m comment --comment shocker -j ACCEPT"
	ruleOut = " -o bridge0 -m comment --comment shocker -j ACCEPT"
)

// legacyDiff is what has changed in the rules of iptables-legacy.
func legacyDiff(t *testing.T, h *testkit.Host, before testkit.State) string {
	t.Helper()
	only := func(s testkit.State) testkit.State { return testkit.State{"iptables": s["iptables"]} }
	return testkit.Diff(only(before), only(h.Snapshot(t)))
}

// TestLegacyDrops: so does one whose FORWARD chain of iptables-legacy drops,
// whatever nftables says beside it.
func TestLegacyDrops(t *testing.T) {
	testkit.Requires(t, "iptables-legacy")
	for _, test := range []struct{ name, rules, chain string }{
		{"plain", legacyDrop, "FORWARD"},
		{"others like ours", legacyDrop + "iptables-legacy -A FORWARD -i eth9 -m comment --comment shocker -j ACCEPT; " +
			"iptables-legacy -A FORWARD -s 10.9.0.0/16" + ruleIn + "; iptables-legacy -A FORWARD -p tcp" + ruleOut +
			"; iptables-legacy -A FORWARD ! -o bridge0 -p 253 -j ACCEPT; iptables-legacy -A FORWARD -i bridge0+ -m comment --comment shocker -j ACCEPT; iptables-legacy -A INPUT" + ruleIn, "FORWARD"},
		{"Docker", legacyDrop + legacyDocker, "DOCKER-USER"},
		{"beside nftables", legacyDrop + "iptables-nft -P FORWARD DROP", "FORWARD"},
	} {
		t.Run(test.name, func(t *testing.T) {
			on(t, func(t *testing.T, h *testkit.Host) {
				must(t, h.Sh(t, outside+test.rules))
				before := h.Snapshot(t)
				want := "+ iptables: -A " + test.chain + ruleIn + "\n+ iptables: -A " + test.chain + ruleOut
				for _, id := range []string{"ps_1", "ps_2"} {
					out := must(t, net(t, h, "up", id))
					must(t, h.Sh(t, "shocker-net exec "+id+" -- busybox ping -c 1 -W 5 192.0.2.2"))
					if d := legacyDiff(t, h, before); d != want {
						t.Errorf("iptables-legacy has\n%s; want\n%s", d, want)
					}
					if err := os.WriteFile("out", []byte(out), 0o600); err != nil {
						t.Fatal(err)
					}
					must(t, h.Sh(t, "shocker-net check <out"))
					// check misses what is lost, and it comes back.
					must(t, h.Sh(t, "iptables-legacy -D "+test.chain+ruleIn+"; nft delete table inet shocker"))
					if r := h.Sh(t, "shocker-net check <out"); r.Code != 1 || !strings.Contains(r.Stderr, "chain "+test.chain+" of iptables-legacy drops") {
						t.Errorf("check without one of the rules: %+v", r)
					}
				}
				must(t, net(t, h, "down", "ps_1", "ps_2"))
				must(t, h.Sh(t, "shocker-net teardown; rm -r /run/shocker/ps_[12]; umount /run/shocker; rmdir /run/shocker"))
				h.Settle(t, before)
			})
		})
	}
}

// TestDropsLater: what drops since there is a network, or has lost our rules,
// gets them with the next container, for all.
func TestDropsLater(t *testing.T) {
	testkit.Requires(t, "iptables-legacy")
	on(t, func(t *testing.T, h *testkit.Host) {
		must(t, h.Sh(t, outside))
		const ping = "shocker-net exec ps_1 -- busybox ping -c 1 -W "
		must(t, net(t, h, "up", "ps_1"))
		for i, rules := range []string{
			"iptables-nft -P FORWARD DROP",
			"iptables-nft -F FORWARD",
			"iptables-nft -N DOCKER-USER; iptables-nft -F FORWARD; iptables-nft -A FORWARD -j DOCKER-USER",
			legacyDrop,
			"iptables-legacy -F FORWARD",
			"iptables-legacy -N DOCKER-USER; iptables-legacy -F FORWARD; iptables-legacy -A FORWARD -j DOCKER-USER",
		} {
			must(t, h.Sh(t, ping+"5 192.0.2.2; "+rules))
			if r := h.Sh(t, ping+"1 192.0.2.2"); r.Code == 0 {
				t.Errorf("%s: nothing is dropped", rules)
			}
			must(t, net(t, h, "up", fmt.Sprintf("ps_%d", i+2)))
		}
		must(t, h.Sh(t, ping+"5 192.0.2.2"))
		must(t, net(t, h, "down", "ps_1", "ps_2", "ps_3", "ps_4", "ps_5", "ps_6", "ps_7"))
		must(t, h.Sh(t, "shocker-net teardown"))
		if left := must(t, h.Sh(t, "iptables-nft -S; iptables-legacy -S; nft list tables")); strings.Contains(left, "bridge0") || strings.Contains(left, "inet shocker") {
			t.Errorf("left behind: %s", left)
		}
	})
}

// TestLegacyAccepts: where nothing drops, or where somebody has let the bridge
// pass, nothing of ours gets into iptables-legacy, and no table is made.
func TestLegacyAccepts(t *testing.T) {
	testkit.Requires(t, "iptables-legacy")
	for name, rules := range map[string]string{
		"no table": "", "policy of another chain": "iptables-legacy -P INPUT DROP; iptables-legacy -t nat -S",
		"theirs": legacyDrop + "iptables-legacy -A FORWARD -i bridge0 -j ACCEPT; iptables-legacy -A FORWARD -o bridge0 -m comment --comment mine -j ACCEPT",
	} {
		t.Run(name, func(t *testing.T) {
			on(t, func(t *testing.T, h *testkit.Host) {
				must(t, h.Sh(t, outside+rules))
				before := h.Snapshot(t)
				must(t, net(t, h, "up", "ps_1"))
				must(t, h.Sh(t, "shocker-net exec ps_1 -- busybox ping -c 1 -W 5 192.0.2.2"))
				if d := legacyDiff(t, h, before); d != "" {
					t.Error(d)
				}
				must(t, net(t, h, "down", "ps_1"))
				must(t, h.Sh(t, "shocker-net teardown; rm -r /run/shocker/ps_1; umount /run/shocker; rmdir /run/shocker"))
				h.Settle(t, before)
			})
		})
	}
}

// TestLegacyProgram: without a program that only root can have put there the
// packets would be dropped: the container is refused, with what to do.
func TestLegacyProgram(t *testing.T) {
	testkit.Requires(t, "iptables-legacy")
	on(t, func(t *testing.T, h *testkit.Host) {
		must(t, h.Sh(t, legacyDrop+`
			mkdir theirs
			cp -P /usr/sbin/iptables-legacy /usr/sbin/xtables-legacy-multi theirs
			rm /usr/sbin/iptables-legacy
			chmod 777 theirs`))
		for _, test := range []struct{ path, want string }{
			{"$PATH", "no program iptables-legacy"},
			{h.Dir + "/theirs:$PATH", h.Dir + "/theirs can be written by others"},
		} {
			r := h.Sh(t, "echo '"+record("ps_1")+"' | PATH="+test.path+" shocker-net up")
			if r.Code != 1 || r.Stdout != "" || strings.Count(r.Stderr, "\n") != 1 {
				t.Errorf("with PATH=%s: %+v; want one line", test.path, r)
			}
			for _, want := range []string{test.want, "FORWARD", "drops", "bridge0", "install it", "--network"} {
				if !strings.Contains(r.Stderr, want) {
					t.Errorf("with PATH=%s: %q; want %q in it", test.path, r.Stderr, want)
				}
			}
		}
		must(t, net(t, h, "up --network none", "ps_2"))
		must(t, h.Sh(t, "chmod 755 theirs; echo '"+record("ps_3")+"' | PATH=$PWD/theirs:$PATH shocker-net up"))
		if r := h.Sh(t, "echo '"+record("ps_4")+"' | SHOCKER_BRIDGE=br+ shocker-net up"); r.Code != 1 {
			t.Errorf("another bridge beside a container: %+v", r)
		}
		must(t, net(t, h, "down", "ps_3"))
		r := h.Sh(t, "shocker-net teardown")
		if r.Code != 1 || !strings.Contains(r.Stderr, "withdraw rules from chain FORWARD") || !strings.Contains(r.Stderr, "no program") {
			t.Errorf("teardown without the program: %+v", r)
		}
		must(t, h.Sh(t, "PATH=$PWD/theirs:$PATH shocker-net teardown"))
		if r := h.Sh(t, "echo '"+record("ps_4")+"' | SHOCKER_BRIDGE=br+ shocker-net up"); r.Code != 1 || !strings.Contains(r.Stderr, "br+") || !strings.Contains(r.Stderr, "SHOCKER_BRIDGE") {
			t.Errorf("a bridge whose name is a pattern: %+v", r)
		}
		must(t, h.Sh(t, "shocker-net teardown; cp -P theirs/iptables-legacy /usr/sbin"))
		if rules := h.Snapshot(t)["iptables"]; len(rules) != 3 {
			t.Errorf("rules are left: %q", rules)
		}
	})
}

// TestLegacyKilled: the program that goes on after we are killed is waited for
// by gc, which takes its rules away.
func TestLegacyKilled(t *testing.T) {
	testkit.Requires(t, "iptables-legacy")
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		t.Chdir(h.Dir)
		must(t, h.Sh(t, legacyDrop+`mkdir slow; cat >slow/iptables-legacy <<-EOF
			#!/bin/sh
			[ ! -e $PWD/kill\$5 ] || kill -9 \$PPID
			while [ -e $PWD/kill\$5 ]; do sleep 0.05; done
			exec /usr/sbin/iptables-legacy "\$@"
			EOF
			chmod 755 slow/iptables-legacy`))
		must(t, h.Sh(t, "shocker gc")) // makes the store's directories
		before := h.Snapshot(t)
		for _, when := range []string{"-o", "-i"} {
			r := h.Sh(t, "echo '"+record("ps_1")+"' >records; touch kill"+when+"; PATH=$PWD/slow:$PATH shocker-net up <records")
			if r.Code != 137 {
				t.Fatalf("killed before %s: %+v; want 137", when, r)
			}
			gc := exec.Command("shocker", "gc")
			if err := gc.Start(); err != nil {
				t.Fatal(err)
			}
			testkit.Eventually(t, 10*time.Second, func() error { return locking(gc.Process.Pid) })
			must(t, h.Sh(t, "rm kill*"))
			if err := gc.Wait(); err != nil {
				t.Error(err)
			}
			h.Settle(t, before)
		}
	})
}

// locking returns nil once the process waits for a lock.
func locking(pid int) error {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", pid))
	for _, file := range threads {
		if call, _ := os.ReadFile(file); strings.HasPrefix(string(call), fmt.Sprintf("%d ", unix.SYS_FLOCK)) {
			return nil
		}
	}
	return errors.Join(err, fmt.Errorf("process %d waits for no lock", pid))
}

func TestSubnet(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host) {
		must(t, h.Sh(t, "ip link add b9 type bridge; ip link set b9 up; ip addr add 10.7.0.1/16 dev b9; ip route add 10.9.9.0/24 via 10.7.0.9"))
		before := h.Snapshot(t)
		for subnet, want := range map[string]string{
			"10.7.3.0/24":   "route to 10.7.0.0/16 through b9",
			"10.9.0.0/16":   "route to 10.9.9.0/24 through b9",
			"10.0.0.0/31":   "not an IPv4 subnet",
			"fd00::/64":     "not an IPv4 subnet",
			"not-a-network": "not an IPv4 subnet",
		} {
			if err := os.WriteFile("records", []byte(record("ps_1")+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			r := h.Sh(t, "SHOCKER_SUBNET="+subnet+" shocker-net up <records")
			if r.Code != 1 || r.Stdout != "" || !strings.Contains(r.Stderr, want) || !strings.Contains(r.Stderr, "SHOCKER_SUBNET") {
				t.Errorf("SHOCKER_SUBNET=%s: %+v; want %q and the variable in the error", subnet, r, want)
			}
		}
		// Half-default routes, as VPNs set them, overlap with nothing.
		must(t, h.Sh(t, "ip route add 0.0.0.0/1 via 10.7.0.9; ip route add default via 10.7.0.9"))
		must(t, net(t, h, "up", "ps_1"))
		must(t, net(t, h, "down", "ps_1"))
		must(t, h.Sh(t, "ip route del 0.0.0.0/1; ip route del default; shocker-net teardown; rm -r /run/shocker/ps_1; umount /run/shocker; rmdir /run/shocker"))
		h.Settle(t, before)
	})
}

func TestExhausted(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host) {
		if err := os.Setenv("SHOCKER_SUBNET", "10.0.0.0/29"); err != nil {
			t.Fatal(err)
		}
		must(t, net(t, h, "up", "ps_1", "ps_2", "ps_3", "ps_4", "ps_5"))
		r := net(t, h, "up", "ps_6")
		if r.Code != 1 || !strings.Contains(r.Stderr, "10.0.0.0/29") || !strings.Contains(r.Stderr, "SHOCKER_SUBNET") {
			t.Errorf("a sixth container: %+v", r)
		}
		must(t, net(t, h, "down", "ps_3"))
		if out := must(t, net(t, h, "up", "ps_6")); !strings.Contains(out, `"10.0.0.4"`) {
			t.Errorf("the address that is free again is not in %s", out)
		}
	})
}

// TestAtOnce: processes that all find nothing make one bridge, and no two get
// the same address.
func TestAtOnce(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host) {
		var script strings.Builder
		for i := range 20 {
			fmt.Fprintf(&script, "echo '%s' | shocker-net up | jq -r '.annotations[\"sh.shocker.address\"]' &\n", record(fmt.Sprintf("ps_%d", i)))
		}
		out := strings.Fields(must(t, h.Sh(t, script.String()+"wait")))
		slices.Sort(out)
		if len(slices.Compact(slices.Clone(out))) != 20 {
			t.Errorf("20 containers got the addresses %q", out)
		}
	})
}

// TestOthersBridge: an interface of our bridge's name is left alone.
func TestOthersBridge(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host) {
		must(t, h.Sh(t, "ip link add bridge0 type bridge; ip link set bridge0 up; ip addr add 172.31.0.1/24 dev bridge0"))
		before := h.Snapshot(t)
		r := net(t, h, "up", "ps_1")
		if r.Code != 1 || !strings.Contains(r.Stderr, "bridge0") || !strings.Contains(r.Stderr, "not ours") {
			t.Errorf("somebody's bridge0: %+v", r)
		}
		must(t, h.Sh(t, "shocker-net teardown; rm -r /run/shocker/ps_1; umount /run/shocker; rmdir /run/shocker"))
		h.Settle(t, before)

		// One with just our address is used, and stays. Our rules go.
		must(t, h.Sh(t, "ip addr add 10.0.0.1/24 dev bridge0; iptables -P FORWARD DROP"))
		before = h.Snapshot(t)
		must(t, net(t, h, "up", "ps_1"))
		must(t, net(t, h, "down", "ps_1"))
		must(t, h.Sh(t, "shocker-net teardown; rm -r /run/shocker/ps_1; umount /run/shocker; rmdir /run/shocker"))
		h.Settle(t, before)
	})
}

// TestForwarding is switched on for containers, and off after them unless it
// was on before.
func TestForwarding(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host) {
		for _, was := range []string{"0", "1"} {
			must(t, h.Sh(t, "echo "+was+" >/proc/sys/net/ipv4/ip_forward"))
			must(t, net(t, h, "up", "ps_1"))
			if now := must(t, h.Sh(t, "cat /proc/sys/net/ipv4/ip_forward")); now != "1\n" {
				t.Errorf("with a container: %q", now)
			}
			must(t, net(t, h, "down", "ps_1"))
			must(t, h.Sh(t, "shocker-net teardown"))
			if now := must(t, h.Sh(t, "cat /proc/sys/net/ipv4/ip_forward")); now != was+"\n" {
				t.Errorf("it was %s, and is %q after the last container", was, now)
			}
		}
	})
}

// TestOtherSettings: without a container the next one gets the network that is
// asked for now; with one it is refused.
func TestOtherSettings(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host) {
		before := h.Snapshot(t)
		must(t, net(t, h, "up", "ps_1"))
		for _, other := range []string{"SHOCKER_SUBNET=10.5.0.0/24", "SHOCKER_BRIDGE=br5"} {
			r := h.Sh(t, "echo '"+record("ps_2")+"' | "+other+" shocker-net up")
			if _, value, _ := strings.Cut(other, "="); r.Code != 1 || !strings.Contains(r.Stderr, value) || !strings.Contains(r.Stderr, "stop all containers") {
				t.Errorf("%s with a container: %+v; want it refused", other, r)
			}
		}
		must(t, net(t, h, "down", "ps_1"))
		for settings, want := range map[string]string{
			"SHOCKER_SUBNET=10.5.0.0/24 ":                    "bridge0 10.5.0.1/24\n",
			"SHOCKER_BRIDGE=br5 ":                            "br5 10.0.0.1/24\n",
			"SHOCKER_BRIDGE=br6 SHOCKER_SUBNET=10.6.0.0/16 ": "br6 10.6.0.1/16\n",
		} {
			must(t, h.Sh(t, "echo '"+record("ps_2")+"' | "+settings+"shocker-net up"))
			if got := must(t, h.Sh(t, "ip -4 -br addr show type bridge | awk '{ print $1, $3 }'")); got != want {
				t.Errorf("%s: bridges are %q; want %q", settings, got, want)
			}
			must(t, net(t, h, "down", "ps_2"))
		}
		for setting, want := range map[string]string{
			"SHOCKER_BRIDGE=br%d": "br%d", "SHOCKER_BRIDGE=../x": "../x", "SHOCKER_BRIDGE=0123456789abcdef": "15 bytes", "SHOCKER_BRIDGE='a b'": "a b",
			"SHOCKER_SUBNET=224.0.0.0/24": "not an IPv4 subnet", "SHOCKER_SUBNET=0.0.0.0/8": "not an IPv4 subnet",
		} {
			r := h.Sh(t, "echo '"+record("ps_2")+"' | "+setting+" shocker-net up")
			if r.Code != 1 || !strings.Contains(r.Stderr, want) || !strings.Contains(r.Stderr, "SHOCKER_") {
				t.Errorf("%s: %+v; want it refused", setting, r)
			}
		}
		must(t, h.Sh(t, "shocker-net teardown; rm -r /run/shocker/ps_[12]; umount /run/shocker; rmdir /run/shocker"))
		h.Settle(t, before)
	})
}

// TestBridgeAddress: whatever comes to the bridge, or takes its place, its
// hardware address is the one that containers know.
func TestBridgeAddress(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host) {
		must(t, net(t, h, "up", "ps_1"))
		const address = "cat /sys/class/net/bridge0/address"
		before := must(t, h.Sh(t, address))
		must(t, h.Sh(t, "ip link add port9 address 02:00:00:00:00:01 type veth peer name port8; ip link set port9 master bridge0 up"))
		if now := must(t, h.Sh(t, address)); now != before {
			t.Errorf("with another port it has %q; want %q", now, before)
		}
		must(t, h.Sh(t, "ip link del bridge0"))
		must(t, net(t, h, "up", "ps_2"))
		if now := must(t, h.Sh(t, address)); now != before {
			t.Errorf("made anew it has %q; want %q", now, before)
		}
	})
}

// TestBridgeDeleted: the containers that run get the next bridge.
func TestBridgeDeleted(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host) {
		must(t, net(t, h, "up", "ps_1"))
		must(t, h.Sh(t, "ip link del bridge0"))
		must(t, net(t, h, "up", "ps_2"))
		for _, address := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"} {
			must(t, h.Sh(t, "shocker-net exec ps_1 -- busybox ping -c 1 -W 5 "+address))
		}
	})
}

// TestOthersTable: a table of our name that somebody else has made is left
// alone.
func TestOthersTable(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host) {
		must(t, h.Sh(t, "nft add table inet shocker; nft add chain inet shocker theirs"))
		before := h.Snapshot(t)
		r := net(t, h, "up", "ps_1")
		if r.Code != 1 || !strings.Contains(r.Stderr, "table inet shocker is not ours") {
			t.Errorf("somebody's table: %+v", r)
		}
		must(t, h.Sh(t, "shocker-net teardown; rm -r /run/shocker/ps_1; umount /run/shocker; rmdir /run/shocker"))
		h.Settle(t, before)
	})
}

// TestTeardownAtOnce: that the network goes with the last container does not
// matter to the next one, at whatever moment.
func TestTeardownAtOnce(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host) {
		r := h.Sh(t, `
			echo '`+record("ps_1")+`' >records
			(while [ ! -e stop ]; do shocker-net teardown; done) & 
			(while [ ! -e stop ]; do shocker-net teardown; done) & 
			for i in $(seq 40); do
				shocker-net up <records | shocker-net check | shocker-net down >/dev/null
			done
			touch stop; wait`)
		if r.Code != 0 || r.Stderr != "" {
			t.Errorf("%+v", r)
		}
	})
}
