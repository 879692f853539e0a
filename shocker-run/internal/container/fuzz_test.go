package container

import (
	"encoding/json"
	"errors"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"shocker.sh/lib/spawn"
)

// Any JSON in the place of a config is refused, or becomes the steps of a
// process, which are written and not run.
func FuzzConfig(f *testing.F) {
	full := config("/", "true")
	umask, adj := uint32(0o22), 5
	full.Process.User = specs.User{UID: 1, GID: 2, AdditionalGids: []uint32{3}, Umask: &umask}
	full.Process.OOMScoreAdj, full.Process.ConsoleSize, full.Process.Terminal = &adj, &specs.Box{Height: 1, Width: 2}, true
	full.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 1, Hard: 2}}
	full.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedDeadline, Runtime: 1, Deadline: 2, Period: 3}
	full.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_IDLE}
	full.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0-3,7", Final: "1"}
	full.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
	full.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0-1", Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes}}
	full.Linux.Namespaces = append(full.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
	full.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: -5, Nanosecs: 3}}
	full.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "c", Major: 1, Minor: 2}}
	full.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth0": {Name: "x%d"}}
	full.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "kernel/msgmax": "2"}
	full.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/x", Timeout: &adj}}}
	for _, spec := range []*specs.Spec{full, config("rootfs", "sh"), {}} {
		seed, err := json.Marshal(spec)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var spec specs.Spec
		if json.Unmarshal(data, &spec) != nil || check(&spec) != nil {
			return
		}
		if err := steps(&spec); err != nil && !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrUnsupported) && !errors.Is(err, spawn.ErrTableFull) {
			t.Error(err)
		}
	})
}

// steps writes all that does not need the container's files.
func steps(spec *specs.Spec) error {
	c := &Container{spec: spec, setup: &setup{ns: &namespaces{create: -1}}}
	for _, mnt := range spec.Mounts {
		isBind(mnt, parseOptions(mnt.Options))
	}
	for key := range spec.Linux.Sysctl {
		_ = checkSysctl(key, c.setup.ns) // an error is as good
	}
	if err := c.capabilities(true); err != nil {
		return err
	}
	b, err := c.newTable()
	if err != nil {
		return err
	}
	defer b.Close()
	defer b.close()
	if err := c.names(b); err != nil {
		return err
	}
	return c.finish(b)
}
