package spec

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"shocker.sh/lib/applet"
)

// Kinds of Options.Seccomp that are no file.
const (
	seccompDefault    = "default"
	seccompUnconfined = "unconfined"
)

// setSeccomp gives the process the seccomp profile that is asked for. What a
// profile makes depend on capabilities, machine and kernel is resolved here.
func setSeccomp(s *specs.Spec, which string) (err error) {
	switch which {
	case "", seccompDefault:
		s.Linux.Seccomp, err = defaultProfile(s)
	case seccompUnconfined:
	default:
		s.Linux.Seccomp, err = loadProfile(s, which)
	}
	if p := s.Linux.Seccomp; p != nil && (p.DefaultErrnoRet != nil || p.ListenerPath != "") {
		s.Version = "1.1.0" // runtimes before it do not know these
	}
	return err
}

// loadProfile reads a profile as Docker has them, or as a config has.
func loadProfile(s *specs.Spec, path string) (*specs.LinuxSeccomp, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("seccomp profile: %w", err)
	}
	p, err := seccomp.LoadProfile(string(text), s)
	if err != nil {
		return nil, fmt.Errorf("seccomp profile %s: %w", path, err)
	}
	if p == nil {
		return nil, fmt.Errorf("seccomp profile %s says nothing (\"%s\" is none at all)", path, seccompUnconfined)
	}
	return p, nil
}

// defaultProfile is Docker's, less the making of subvolumes. A snapshot leaves
// out the subvolumes in it: what a container kept in one would be lost with
// the next commit, and nobody told. Programs that try make a directory then.
func defaultProfile(s *specs.Spec) (*specs.LinuxSeccomp, error) {
	p, err := seccomp.GetDefaultProfile(s)
	if err != nil {
		return nil, fmt.Errorf("default seccomp profile: %w", err)
	}
	// EPERM, which it is by itself.
	p.DefaultErrnoRet = nil
	for i, call := range p.Syscalls {
		p.Syscalls[i].Names = slices.DeleteFunc(slices.Clone(call.Names), func(name string) bool { return name == "ioctl" })
	}
	p.Syscalls = append(p.Syscalls, ioctls()...)
	return p, nil
}

// subvolumeIoctls are type and number, the lower half, of BTRFS_IOC_SNAP_CREATE,
// SUBVOL_CREATE, SNAP_CREATE_V2 and SUBVOL_CREATE_V2 (include/uapi/linux/btrfs.h).
// No other ioctl of the kernel has any of these.
var subvolumeIoctls = []uint16{0x9401, 0x940e, 0x9417, 0x9418}

// ioctls allows all ioctls but those of subvolumes. libseccomp forgets a rule
// with conditions where one without allows the call, and a rule that does
// what is done anyway, so the refused ones cannot be named: the others are.
// The mask leaves out the upper half of the register, which the kernel does
// not look at.
func ioctls() []specs.LinuxSyscall {
	var rules []specs.LinuxSyscall
	allow := func(mask, value uint64) {
		rules = append(rules, specs.LinuxSyscall{
			Names: []string{"ioctl"}, Action: specs.ActAllow,
			Args: []specs.LinuxSeccompArg{{Index: 1, Op: specs.OpMaskedEqual, Value: mask, ValueTwo: value}},
		})
	}
	// Another type than btrfs's, or a number above 31.
	for bit := uint64(1 << 15); bit >= 1<<5; bit >>= 1 {
		allow(bit, ^uint64(subvolumeIoctls[0])&bit)
	}
	// The others up to 31, as few sets with bits in common as there can be.
	for _, set := range [][2]uint64{{0x06, 0x02}, {0x09, 0x00}, {0x13, 0x11}, {0x15, 0x05}, {0x1a, 0x08}, {0x1c, 0x1c}} {
		allow(set[0], set[1])
	}
	return rules
}

// securityOptions reads --security-opt, as Docker and Podman have it.
func (o *Options) securityOptions(list []string) error {
	for _, opt := range list {
		name, value, _ := strings.Cut(opt, "=")
		switch {
		case name == "seccomp" && value != "":
			o.Seccomp = value
		case name == "no-new-privileges" && (value == "true" || opt == name):
			o.NewPrivileges = false
		case name == "no-new-privileges" && value == "false":
			o.NewPrivileges = true
		default:
			return applet.Usagef("--security-opt %q: want seccomp=%s, seccomp=%s, seccomp=FILE or no-new-privileges=true|false", opt, seccompDefault, seccompUnconfined)
		}
	}
	return nil
}
