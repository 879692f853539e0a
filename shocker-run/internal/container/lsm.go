package container

import (
	"fmt"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/spawn"
)

// appArmor says whether this kernel confines programs with AppArmor.
func appArmor() bool {
	enabled, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && strings.HasPrefix(string(enabled), "Y")
}

// selinux says whether this host labels with SELinux.
func selinux() bool {
	var fs unix.Statfs_t
	return unix.Statfs("/sys/fs/selinux", &fs) == nil && fs.Type == unix.SELINUX_MAGIC
}

// checkLabels refuses what only a security module gives that is not there: a
// container that was to be confined must not run without.
func checkLabels(linux *specs.Linux, p *specs.Process) error {
	switch {
	case p.ApparmorProfile != "" && !appArmor():
		return fmt.Errorf("%w: AppArmor profile %q: AppArmor is not enabled on this host", ErrUnsupported, p.ApparmorProfile)
	case p.SelinuxLabel != "" && !selinux():
		return fmt.Errorf("%w: SELinux label %q: SELinux is not enabled on this host", ErrUnsupported, p.SelinuxLabel)
	case linux.MountLabel != "" && !selinux():
		return fmt.Errorf("%w: mount label %q: SELinux is not enabled on this host", ErrUnsupported, linux.MountLabel)
	}
	return nil
}

// attributes are where the process tells a security module what its program is
// to be. Only a process itself can write them.
const (
	appArmorExec     = "thread-self/attr/apparmor/exec"
	selinuxExec      = "thread-self/attr/exec"
	selinuxKeyCreate = "thread-self/attr/keycreate"
)

// labels puts the program under its AppArmor profile and SELinux label, from
// execve(2) on.
func (b *builder) labels(p *specs.Process) error {
	if p.ApparmorProfile != "" {
		if err := b.label("AppArmor profile "+p.ApparmorProfile, appArmorExec, "exec "+p.ApparmorProfile); err != nil {
			return err
		}
	}
	if p.SelinuxLabel == "" {
		return nil
	}
	return b.label("SELinux label "+p.SelinuxLabel, selinuxExec, p.SelinuxLabel)
}

// label writes an attribute of the process through the host's proc, of which it
// is certain that it is one, and that nothing is mounted on it (CVE-2025-52881).
func (b *builder) label(name, path, value string) error {
	if b.proc == nil {
		proc, err := hostProc()
		if err != nil {
			return err
		}
		b.proc = proc
		b.own = append(b.own, proc)
	}
	how := spawn.Struct(b.Table, &unix.OpenHow{
		Flags: unix.O_WRONLY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_MAGICLINKS,
	})
	fd := b.Call("set "+name, unix.SYS_OPENAT2, b.proc, path, how, unix.SizeofOpenHow)
	b.Call("set "+name, unix.SYS_WRITE, fd, value, len(value))
	return nil
}

// hostProc opens the root of the host's proc.
func hostProc() (*os.File, error) {
	proc, err := os.OpenFile("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	const rootInode = 1 // PROC_ROOT_INO
	var fs unix.Statfs_t
	var st unix.Stat_t
	if unix.Fstatfs(int(proc.Fd()), &fs) != nil || unix.Fstat(int(proc.Fd()), &st) != nil ||
		fs.Type != unix.PROC_SUPER_MAGIC || st.Ino != rootInode {
		proc.Close()
		return nil, fmt.Errorf("%w: /proc is not a proc file system", ErrUnsupported)
	}
	return proc, nil
}

// withMountLabel adds the label to the parameters of a new file system. Those of
// the kernel's own files have labels of their own.
func withMountLabel(kind string, data []string, label string) []string {
	if label == "" || kind == "proc" || kind == "sysfs" || kind == "mqueue" || strings.HasPrefix(kind, "cgroup") {
		return data
	}
	return append(data, "context="+label)
}
