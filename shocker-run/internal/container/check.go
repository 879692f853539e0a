package container

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// check refuses a config that is not whole, or that asks for what cannot be:
// nothing asked for is left out in silence. It looks at nothing but the
// config.
func check(spec *specs.Spec) error {
	if err := checkVersion(spec.Version); err != nil {
		return err
	}
	if spec.Root == nil || spec.Root.Path == "" {
		return fmt.Errorf("%w: it has no root.path", ErrInvalid)
	}
	if spec.Linux == nil {
		return fmt.Errorf("%w: it has no linux", ErrInvalid)
	}
	return errors.Join(checkLinux(spec.Linux), checkProcess(spec.Process), checkHooks(spec.Hooks))
}

// checkVersion takes all of version 1, as what is not known of a later one is
// refused where it is met.
func checkVersion(version string) error {
	core, _, _ := strings.Cut(version, "+")
	core, _, _ = strings.Cut(core, "-")
	numbers := strings.Split(core, ".")
	ok := len(numbers) == 3
	for _, n := range numbers {
		_, err := strconv.ParseUint(n, 10, 32)
		ok = ok && err == nil && (n == "0" || n[0] != '0')
	}
	if !ok {
		return fmt.Errorf("%w: ociVersion %q: want MAJOR.MINOR.PATCH", ErrInvalid, version)
	}
	if numbers[0] != "1" {
		return fmt.Errorf("%w: ociVersion %s: this runtime implements version %s", ErrUnsupported, version, specs.Version)
	}
	return nil
}

// checkLinux checks what no other step parses anyway.
func checkLinux(linux *specs.Linux) error {
	switch {
	case linux.IntelRdt != nil:
		return fmt.Errorf("%w: linux.intelRdt", ErrUnsupported)
	}
	if err := errors.Join(checkNamespaces(linux), checkNetDevices(linux)); err != nil {
		return err
	}
	if _, ok := rootPropagation[linux.RootfsPropagation]; !ok {
		return fmt.Errorf("%w: linux.rootfsPropagation %q: want one of %q", ErrInvalid, linux.RootfsPropagation, knownOf(rootPropagation))
	}
	for _, p := range append(linux.MaskedPaths[:len(linux.MaskedPaths):len(linux.MaskedPaths)], linux.ReadonlyPaths...) {
		if !path.IsAbs(p) || strings.ContainsRune(p, 0) {
			return fmt.Errorf("%w: masked or read-only path %q: want an absolute path", ErrInvalid, p)
		}
		if path.Clean(p) == "/" { // what is mounted on a root covers nothing
			return fmt.Errorf("%w: masked or read-only path %q is the root: there is root.readonly", ErrInvalid, p)
		}
	}
	if _, err := parseDevices(linux.Devices); err != nil {
		return err
	}
	if linux.Personality != nil {
		if _, err := parsePersonality(linux.Personality); err != nil {
			return err
		}
	}
	if linux.MemoryPolicy != nil {
		if _, _, err := parseMemoryPolicy(linux.MemoryPolicy); err != nil {
			return err
		}
	}
	return nil
}

// knownOf lists the values that a field can have, for who wrote another.
func knownOf[K ~string, V any](values map[K]V) []K {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(values)), func(k K) bool { return k == "" })
}

// checkNamespaces checks the namespaces, and what needs one.
func checkNamespaces(linux *specs.Linux) error {
	paths := make(map[specs.LinuxNamespaceType]string)
	for _, ns := range linux.Namespaces {
		if _, ok := namespaceFlags[ns.Type]; !ok {
			return fmt.Errorf("%w: namespace %q: want one of %q", ErrInvalid, ns.Type, knownOf(namespaceFlags))
		}
		if _, ok := paths[ns.Type]; ok {
			return fmt.Errorf("%w: namespace %q appears twice", ErrInvalid, ns.Type)
		}
		if ns.Path != "" && !path.IsAbs(ns.Path) {
			return fmt.Errorf("%w: path %q of namespace %q: want an absolute path", ErrInvalid, ns.Path, ns.Type)
		}
		paths[ns.Type] = ns.Path
	}
	user, hasUser := paths[specs.UserNamespace]
	mount, hasMount := paths[specs.MountNamespace]
	clock, hasTime := paths[specs.TimeNamespace]
	mappings := len(linux.UIDMappings) + len(linux.GIDMappings)
	switch {
	case !hasUser && mappings > 0:
		return fmt.Errorf("%w: uidMappings and gidMappings without a user namespace", ErrInvalid)
	case hasUser && user == "" && (len(linux.UIDMappings) == 0 || len(linux.GIDMappings) == 0):
		return fmt.Errorf("%w: a user namespace without uidMappings and gidMappings", ErrInvalid)
	case hasUser && !hasMount:
		return fmt.Errorf("%w: a user namespace without a mount namespace: its root could mount nothing", ErrInvalid)
	case hasUser && user == "" && mount != "":
		return fmt.Errorf("%w: a new user namespace has no power over the mount namespace %s", ErrInvalid, mount)
	case len(linux.TimeOffsets) > 0 && (!hasTime || clock != ""):
		return fmt.Errorf("%w: timeOffsets without a new time namespace", ErrInvalid)
	}
	return checkTimeOffsets(linux.TimeOffsets)
}

// checkProcess refuses a process that cannot be.
func checkProcess(p *specs.Process) error {
	switch {
	case p == nil:
		return fmt.Errorf("%w: it has no process", ErrInvalid)
	case len(p.Args) == 0:
		return fmt.Errorf("%w: process.args names no program", ErrInvalid)
	case p.Args[0] == "":
		return fmt.Errorf("%q: %w in $PATH", p.Args[0], ErrNotFound)
	case !strings.HasPrefix(p.Cwd, "/"):
		return fmt.Errorf("%w: process.cwd %q: want an absolute path", ErrInvalid, p.Cwd)
	case strings.ContainsRune(p.ApparmorProfile+p.SelinuxLabel, 0):
		return fmt.Errorf("%w: a NUL byte in an AppArmor profile or SELinux label", ErrInvalid)
	}
	for _, e := range p.Env {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" {
			return fmt.Errorf("%w: process.env: %q is not NAME=VALUE", ErrInvalid, e)
		}
	}
	for _, s := range append(append([]string{p.Cwd}, p.Args...), p.Env...) {
		if strings.ContainsRune(s, 0) {
			return fmt.Errorf("%w: %q holds a NUL byte", ErrInvalid, s)
		}
	}
	if size := p.ConsoleSize; p.Terminal && size != nil && (size.Height > math.MaxUint16 || size.Width > math.MaxUint16) {
		return fmt.Errorf("%w: process.consoleSize %d x %d", ErrInvalid, size.Width, size.Height)
	}
	for _, id := range append([]uint32{p.User.UID, p.User.GID}, p.User.AdditionalGids...) {
		if id == math.MaxUint32 { // "leave alone" to setresuid(2): it would stay root
			return fmt.Errorf("%w: process.user: %d is the number of no user or group", ErrInvalid, id)
		}
	}
	if p.User.Umask != nil && *p.User.Umask > 0o777 {
		return fmt.Errorf("%w: process.user.umask %#o: want 0777 at most", ErrInvalid, *p.User.Umask)
	}
	return errors.Join(checkLimits(p), checkSchedule(p))
}

func checkSchedule(p *specs.Process) error {
	if p.Scheduler != nil {
		if _, err := parseScheduler(p.Scheduler); err != nil {
			return err
		}
	}
	if p.IOPriority != nil {
		if _, err := parseIOPriority(p.IOPriority); err != nil {
			return err
		}
	}
	_, _, err := parseAffinity(p.ExecCPUAffinity)
	return err
}
