package oci

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"shocker.sh/lib/cgroup"
	"shocker.sh/shocker-run/internal/container"
)

func (t *tool) features() error {
	yes, no := true, false
	return t.printJSON(&features.Features{
		OCIVersionMin: "1.0.0",
		OCIVersionMax: specs.Version,
		Hooks:         container.Hooks(),
		MountOptions:  container.MountOptions(),
		// Annotations change nothing here but what systemd is told of a scope.
		PotentiallyUnsafeConfigAnnotations: []string{cgroup.PropertyAnnotation},
		Linux: &features.Linux{
			Namespaces:   container.Namespaces(),
			Capabilities: container.Capabilities(),
			Apparmor:     &features.Apparmor{Enabled: &yes},
			Selinux:      &features.Selinux{Enabled: &yes},
			MemoryPolicy: &features.MemoryPolicy{Modes: container.MemoryModes(), Flags: container.MemoryFlags()},
			NetDevices:   &features.NetDevices{Enabled: &yes},
			MountExtensions: &features.MountExtensions{
				IDMap: &features.IDMap{Enabled: &yes},
			},
			Cgroup:   &features.Cgroup{V1: &yes, V2: &yes, Systemd: &yes, SystemdUser: &no, Rdma: &yes},
			Seccomp:  container.Seccomp(),
			IntelRdt: &features.IntelRdt{Enabled: &no},
		},
	})
}
