package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/applet"
)

func (t *tool) otherCommands() []*cli.Command {
	return []*cli.Command{
		{
			Name: "features", Usage: "tell as JSON what of the specification is there (features.md)",
			Action: func(c *cli.Context) error {
				if c.NArg() > 0 {
					return applet.Usagef("features: an argument too many: %q", c.Args().First())
				}
				return t.features()
			},
		},
		{
			Name: "spec", Usage: "write a config.json to begin with", Flags: []cli.Flag{
				&cli.StringFlag{Name: "bundle", Aliases: []string{"b"}, Usage: "`DIR` to write it to (default: here)"},
				&cli.BoolFlag{Name: "rootless", Usage: "with a user namespace of the caller's own ids"},
			},
			Action: func(c *cli.Context) error {
				if c.NArg() > 0 {
					return applet.Usagef("spec: an argument too many: %q", c.Args().First())
				}
				return t.writeSpec(filepath.Join(c.String("bundle"), "config.json"), c.Bool("rootless"))
			},
		},
	}
}

func (t *tool) writeSpec(path string, rootless bool) (retErr error) {
	spec := example()
	// On v1 a container sees the host's cgroups, as runc and docker have it.
	var tree unix.Statfs_t
	if err := unix.Statfs(t.cgroupRoot, &tree); err == nil && tree.Type == unix.CGROUP2_SUPER_MAGIC {
		spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	if rootless {
		own(spec, os.Geteuid(), os.Getegid())
	}
	data, err := json.MarshalIndent(spec, "", "\t")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists already: remove it first", path)
	}
	if err != nil {
		return err
	}
	defer func() {
		if retErr != nil {
			retErr = errors.Join(retErr, os.Remove(path))
		}
	}()
	_, err = f.Write(append(data, '\n'))
	return errors.Join(err, f.Close())
}

// example is the config that `spec` writes: a shell in a root file system
// beside it.
func example() *specs.Spec {
	caps := []string{"CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"}
	bind := []string{"nosuid", "noexec", "nodev"}
	return &specs.Spec{
		Version:  specs.Version,
		Root:     &specs.Root{Path: "rootfs", Readonly: true},
		Hostname: "shocker",
		Process: &specs.Process{
			Terminal: true, Args: []string{"sh"}, Cwd: "/", NoNewPrivileges: true,
			Env:          []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"},
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
			Rlimits:      []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 1024, Soft: 1024}},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: append(bind[:3:3], "mode=1777", "size=65536k")},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: bind},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: append(bind[:3:3], "ro")},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: append(bind[:3:3], "relatime", "ro")},
		},
		Linux: &specs.Linux{
			Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace},
				{Type: specs.NetworkNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.MountNamespace},
			},
			MaskedPaths: []string{
				"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
				"/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
			},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
}

// own gives the container a user namespace in which its root is the caller,
// and nobody else is there: no group for the terminals.
func own(spec *specs.Spec, uid, gid int) {
	linux := spec.Linux
	linux.Namespaces = append(linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	linux.UIDMappings = []specs.LinuxIDMapping{{HostID: uint32(uid), Size: 1}}
	linux.GIDMappings = []specs.LinuxIDMapping{{HostID: uint32(gid), Size: 1}}
	linux.Resources = nil
	for i, m := range spec.Mounts {
		spec.Mounts[i].Options = slices.DeleteFunc(m.Options, func(o string) bool { return strings.HasPrefix(o, "gid=") })
	}
}
