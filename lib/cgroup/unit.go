package cgroup

import (
	"context"
	"fmt"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Manager is to whom a host has given its tree of cgroups. What it is not told
// it takes back when it likes: systemd does so on every daemon-reload.
type Manager interface {
	// Start has the unit made, with the process in it.
	Start(ctx context.Context, u Unit, pid int) error
	// Set tells what linux.resources mean for the unit, on a version of
	// cgroups.
	Set(ctx context.Context, u Unit, version int, r *specs.LinuxResources) error
	// Stop has the unit ended and forgotten. One that is not there has been.
	Stop(ctx context.Context, u Unit) error
}

// Unit is a scope of systemd.
type Unit struct {
	Slice string `json:"slice"` // system.slice
	Name  string `json:"name"`  // shocker-ps_42152.scope
	// Properties are further ones that the unit gets, in GVariant's text
	// format: KillSignal: int32 15.
	Properties map[string]string `json:"properties,omitempty"`
}

const (
	upper   = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	letters = upper + "abcdefghijklmnopqrstuvwxyz"
	// unitName is what the name of a unit consists of (systemd.unit(5)).
	unitName = letters + `0123456789:_.\@-`
)

// consists says whether s is not empty, and has only characters of set.
func consists(s, set string) bool { return s != "" && strings.Trim(s, set) == "" }

// ParseUnit reads linux.cgroupsPath, SLICE:PREFIX:NAME, as runc's systemd driver
// does: it is the scope PREFIX-NAME.scope in SLICE. Without a path that is
// shocker-ID.scope in system.slice.
func ParseUnit(cgroupsPath, id string) (Unit, error) {
	if cgroupsPath == "" {
		cgroupsPath = ":shocker:" + id
	}
	parts := strings.Split(cgroupsPath, ":")
	if len(parts) != 3 || parts[2] == "" {
		return Unit{}, fmt.Errorf("%w: %q: want slice:prefix:name, such as system.slice:shocker:ps_42152", ErrUnit, cgroupsPath)
	}
	u := Unit{Slice: parts[0], Name: parts[1] + "-" + parts[2] + ".scope"}
	if u.Slice == "" {
		u.Slice = "system.slice"
	}
	const maxName = 255
	switch {
	case strings.HasSuffix(parts[2], ".slice"):
		return Unit{}, fmt.Errorf("%w: %q: a container is a scope, not a slice", ErrUnit, cgroupsPath)
	case !consists(u.Name, unitName) || len(u.Name) > maxName:
		return Unit{}, fmt.Errorf("%w: %q cannot be the name of a unit", ErrUnit, u.Name)
	}
	_, err := u.Path()
	return u, err
}

// Path is the cgroup of the unit. A dash in the name of a slice stands for a
// level: /a.slice/a-b.slice/NAME (systemd.slice(5)).
func (u Unit) Path() (string, error) {
	name, ok := strings.CutSuffix(u.Slice, ".slice")
	if !ok || !consists(u.Slice, unitName) {
		return "", fmt.Errorf("%w: %q is not the name of a slice", ErrUnit, u.Slice)
	}
	if name == "-" {
		return "/" + u.Name, nil
	}
	path, prefix := "", ""
	for part := range strings.SplitSeq(name, "-") {
		if part == "" {
			return "", fmt.Errorf("%w: %q is not the name of a slice", ErrUnit, u.Slice)
		}
		path += "/" + prefix + part + ".slice"
		prefix += part + "-"
	}
	return path + "/" + u.Name, nil
}

// PropertyAnnotation begins those that ask for properties of the unit.
const PropertyAnnotation = "org.systemd.property."

// Annotated takes properties of the unit out of a config's annotations.
func (u *Unit) Annotated(annotations map[string]string) error {
	for key, value := range annotations {
		name, ok := strings.CutPrefix(key, PropertyAnnotation)
		if !ok {
			continue
		}
		if len(name) < 2 || !consists(name[:1], upper) || !consists(name, letters) {
			return fmt.Errorf("%w: annotation %s names no property of a unit", ErrUnit, key)
		}
		if u.Properties == nil {
			u.Properties = make(map[string]string)
		}
		u.Properties[name] = value
	}
	return nil
}
