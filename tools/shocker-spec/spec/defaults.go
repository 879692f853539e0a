package spec

import specs "github.com/opencontainers/runtime-spec/specs-go"

// ociVersion is the lowest that carries what we write: runtimes refuse
// versions that are newer than they are.
const ociVersion = "1.0.2"

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// capabilities is Docker's default set.
var capabilities = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID",
	"CAP_KILL", "CAP_MKNOD", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP",
	"CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// maskedPaths and readonlyPaths are Docker's: what of /proc and /sys would
// tell about the host, or change it.
var (
	maskedPaths = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
		"/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
		"/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
	}
	readonlyPaths = []string{
		"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
	}
)

// mounts are those of every container. /etc's files come from its run dir.
func mounts(runDir string) []specs.Mount {
	m := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
	}
	for _, name := range etcFiles {
		m = append(m, specs.Mount{
			Destination: "/etc/" + name, Type: "bind", Source: runDir + "/" + name,
			Options: []string{"bind", "rprivate"},
		})
	}
	return m
}

// namespaces of every container. shocker-net gives the paths of two of them.
func namespaces(userns, cgroupns bool) []specs.LinuxNamespace {
	kinds := []specs.LinuxNamespaceType{
		specs.PIDNamespace, specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.MountNamespace,
	}
	if userns {
		kinds = append([]specs.LinuxNamespaceType{specs.UserNamespace}, kinds...)
	}
	if cgroupns {
		kinds = append(kinds, specs.CgroupNamespace)
	}
	var all []specs.LinuxNamespace
	for _, k := range kinds {
		all = append(all, specs.LinuxNamespace{Type: k})
	}
	return all
}

// devices are those that Docker allows; all nodes may be made. They guard the
// host from the device nodes of an image whose root user is the host's: with a
// user namespace the container's root is attached without devices.
func devices() []specs.LinuxDeviceCgroup {
	rules := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	allow := func(kind string, major, minor int64, access string) {
		r := specs.LinuxDeviceCgroup{Allow: true, Type: kind, Access: access}
		if major >= 0 {
			r.Major = &major
		}
		if minor >= 0 {
			r.Minor = &minor
		}
		rules = append(rules, r)
	}
	allow("c", -1, -1, "m")
	allow("b", -1, -1, "m")
	for _, n := range []struct{ major, minor int64 }{
		{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}, {5, 1}, {5, 2}, {136, -1},
	} {
		allow("c", n.major, n.minor, "rwm")
	}
	return rules
}
