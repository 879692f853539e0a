package container

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// inOwnNet puts the test into a network namespace of its own: its thread is
// not used for anything else any more.
func inOwnNet(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

func ip(t *testing.T, args string) string {
	t.Helper()
	out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
	return string(out)
}

// Interfaces of the host arrive with their name, permanent global addresses,
// MTU and hardware address, and are up.
func TestNetDevices(t *testing.T) {
	root := busyboxRoot(t)
	inOwnNet(t)
	for n, kind := range []string{"new user namespace", "none", "foreign network namespace"} {
		spec := config(root)
		switch kind {
		case "none":
			withoutUser(spec)
		case "foreign network namespace":
			setPath(spec, specs.NetworkNamespace, pinned(t, nil, unix.CLONE_NEWNET)[0])
		}
		ip(t, fmt.Sprint("link add dmy0 mtu 1400 address 02:00:00:00:00:05 type veth peer name a", n))
		ip(t, fmt.Sprint("link add dmy1 type veth peer name b", n))
		ip(t, fmt.Sprint("link add dmy2 type veth peer name c", n))
		ip(t, "addr add 10.9.8.7/24 brd 10.9.8.255 dev dmy0")
		ip(t, "addr add 10.9.8.6/32 dev dmy0 scope link")
		ip(t, "addr add 10.9.8.5/24 dev dmy0 valid_lft 1000 preferred_lft 1000")
		ip(t, "addr add 2001:db8::7/64 dev dmy0")
		ip(t, "link set dmy0 up")
		spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{"dmy0": {Name: "eth7"}, "dmy1": {}, "dmy2": {Name: "tpl%d"}}
		got := sh(t, spec, `ip -o link show | grep -o '[a-z0-9]*@.*mtu [0-9]*' | grep -o '^[a-z0-9]*\|[<,]UP\|mtu [0-9]*' | grep -o '[a-zA-Z0-9 ]*'; ip link show eth7 | grep -o 02:00:00:00:00:05; ip -o addr show dev eth7 | grep -o 'inet6* [0-9a-f.:]*/[0-9]*' | grep -v fe80`)
		want := []string{"eth7", "UP", "mtu 1400", "dmy1", "UP", "mtu 1500", "tpl0", "UP", "mtu 1500", "02:00:00:00:00:05", "inet 10.9.8.7/24", "inet6 2001:db8::7/64"}
		lines := strings.Split(got, "\n")
		slices.Sort(lines)
		slices.Sort(want)
		if !slices.Equal(lines, want) {
			t.Errorf("%s: %q; want %q", kind, lines, want)
		}
		if left := ip(t, "-o link show"); strings.Contains(left, "dmy") {
			t.Errorf("%s: left on the host: %s", kind, left)
		}
	}
}

func TestNetDevicesRefused(t *testing.T) {
	root := busyboxRoot(t)
	inOwnNet(t)
	ip(t, "link add dmy0 type veth peer name other")
	devices := func(d map[string]specs.LinuxNetDevice) func(*specs.Spec) {
		return func(s *specs.Spec) { s.Linux.NetDevices = d }
	}
	for name, test := range map[string]struct {
		change func(*specs.Spec)
		want   error
	}{
		"not there":  {devices(map[string]specs.LinuxNetDevice{"nosuch0": {}}), unix.ENODEV},
		"taken":      {devices(map[string]specs.LinuxNetDevice{"dmy0": {Name: "lo"}}), unix.EEXIST},
		"two of one": {devices(map[string]specs.LinuxNetDevice{"dmy0": {Name: "x"}, "dmy1": {Name: "x"}}), ErrInvalid},
		"name":       {devices(map[string]specs.LinuxNetDevice{"dmy0": {Name: "a/b"}}), ErrInvalid},
		"long name":  {devices(map[string]specs.LinuxNetDevice{"dmy0": {Name: "sixteen-letters-"}}), ErrInvalid},
		"no namespace": {func(s *specs.Spec) {
			s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"dmy0": {}}
			s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
		}, ErrInvalid},
		"the host's": {func(s *specs.Spec) {
			s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"dmy0": {Name: "renamed"}}
			setPath(s, specs.NetworkNamespace, "/proc/thread-self/ns/net")
		}, ErrInvalid},
	} {
		spec := config(root, "true")
		test.change(spec)
		if _, err := run(t, spec, nil); !errors.Is(err, test.want) {
			t.Errorf("%s: %v; want %v", name, err, test.want)
		}
	}
	if left := ip(t, "-o link show"); !strings.Contains(left, "dmy0") {
		t.Errorf("the interface is gone: %s", left)
	}
}
