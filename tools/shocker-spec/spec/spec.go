// Package spec is shocker-spec, the first stage of a run: it takes an id and
// makes the record, from an image's config and the command line, or from a
// config that another program wrote.
package spec

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"shocker.sh/lib/record"
	"shocker.sh/lib/stage"
	"shocker.sh/lib/store"
	"shocker.sh/lib/undo"
)

// Name of the stage.
const Name = "shocker-spec"

// Options is what can be asked of a container's record.
type Options struct {
	Image      string   // id or source
	Args       []string // program and arguments; none: the image's
	Entrypoint *string  // in the place of the image's; "": none
	Env        []string // NAME=VALUE, or NAME to pass on the caller's
	Workdir    string
	User       string // USER[:GROUP]
	Name       string
	Hostname   string // default: the id
	TTY        bool
	HostUsers  bool // no user namespace
	// Seccomp is a profile's file, "unconfined", or "default", which "" is too.
	Seccomp       string
	NewPrivileges bool // a setuid program may gain some
}

// Make makes a container and its record. Until the returned mark is done, the
// container counts as being worked on. On error nothing is left behind.
func Make(host stage.Host, st *store.Store, o *Options, by string) (_ *record.Record, _ *undo.Busy, retErr error) {
	img, err := st.FindImage(o.Image)
	if errors.Is(err, store.ErrNoImage) {
		err = fmt.Errorf("%w; shocker images lists those there are, shocker pull fetches others", err)
	}
	if err != nil {
		return nil, nil, err
	}
	release, err := host.HoldRun()
	if err != nil {
		return nil, nil, err
	}
	defer release()
	t := &taking{host: host, store: st, by: by}
	defer func() {
		if retErr != nil {
			retErr = errors.Join(retErr, t.undo())
		}
	}()
	_, err = st.NewContainer(func(id string) error {
		return t.take(id, func(id string) (*record.Record, error) { return build(host, st, img, o, id, t.log) })
	})
	if err != nil {
		return nil, nil, fmt.Errorf("make a container of %s: %w", img.ID, err)
	}
	return t.record, t.busy, nil
}

// build makes the config of container id.
func build(host stage.Host, st *store.Store, img *store.Image, o *Options, id string, log *undo.Log) (*record.Record, error) {
	hostname := id
	if o.Hostname != "" {
		hostname = o.Hostname
	}
	proc, err := process(st.Layer(img.Top()), img.Config.Config, hostname, o)
	if err != nil {
		return nil, err
	}
	spec := &specs.Spec{
		Version:  ociVersion,
		Process:  proc,
		Root:     &specs.Root{Path: "rootfs"},
		Hostname: hostname,
		Mounts:   mounts(host.RunDir(id)),
		Annotations: map[string]string{
			record.AnnotationID:     id,
			record.AnnotationImage:  img.ID,
			record.AnnotationSource: img.Source,
		},
		Linux: &specs.Linux{
			Namespaces:        namespaces(!o.HostUsers, host.CgroupV2()),
			MaskedPaths:       maskedPaths,
			ReadonlyPaths:     readonlyPaths,
			RootfsPropagation: "private",
		},
	}
	if err := setSeccomp(spec, o.Seccomp); err != nil {
		return nil, err
	}
	if o.Name != "" {
		spec.Annotations[record.AnnotationName] = o.Name
	}
	if s := img.Config.Config.StopSignal; s != "" {
		spec.Annotations[record.AnnotationStop] = s
	}
	owner := 0
	if o.HostUsers {
		spec.Linux.Resources = &specs.LinuxResources{Devices: devices()}
	} else {
		first, err := takeRange(host, id, log)
		if err != nil {
			return nil, err
		}
		spec.Linux.UIDMappings = mapping(first)
		spec.Linux.GIDMappings = mapping(first)
		owner = int(first)
	}
	runDir := host.RunDir(id)
	if err := writeEtc(runDir, hostname, owner); err != nil {
		return nil, err
	}
	if err := setPoststop(spec, runDir); err != nil {
		return nil, err
	}
	return record.New(spec)
}

// Renew gives a container that is started again what went when it ended: a
// range of ids, and the files of its /etc.
func Renew(host stage.Host, r *record.Record, log *undo.Log) error {
	var linux specs.Linux
	if _, err := r.Get(&linux, "linux"); err != nil {
		return err
	}
	var hostname string
	if _, err := r.Get(&hostname, "hostname"); err != nil {
		return err
	}
	owner := 0
	if len(linux.UIDMappings) == 1 && linux.UIDMappings[0].HostID >= firstID {
		first, err := takeRange(host, r.ID(), log)
		if err != nil {
			return err
		}
		for _, key := range []string{"uidMappings", "gidMappings"} {
			if err := r.Set(mapping(first), "linux", key); err != nil {
				return err
			}
		}
		owner = int(first)
	}
	return writeEtc(host.RunDir(r.ID()), hostname, owner)
}

// setPoststop adds the hook by which any OCI runtime cleans up after our
// stages when the program has ended: it replays the undo of class exit.
// Nothing is promised of a hook's environment, so all it needs is arguments.
func setPoststop(spec *specs.Spec, runDir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		return err
	}
	if spec.Hooks == nil {
		spec.Hooks = &specs.Hooks{}
	}
	spec.Hooks.Poststop = append(spec.Hooks.Poststop, specs.Hook{
		Path: self,
		Args: []string{Name, "poststop", runDir},
	})
	return nil
}

// taking is the making of a container under one id after another.
type taking struct {
	host   stage.Host
	store  *store.Store
	by     string
	busy   *undo.Busy
	log    *undo.Log
	record *record.Record
	id     string
}

// take tries to make the container with the given id; fs.ErrExist means that
// the id is in use.
func (t *taking) take(id string, build func(id string) (*record.Record, error)) error {
	t.log = undo.Open(t.host.RunDir(id))
	var err error
	if t.busy, err = t.log.Take(t.by); err != nil {
		return err
	}
	t.id = id
	if t.record, err = build(id); err != nil {
		return notExist(err)
	}
	if name := t.record.Annotation(record.AnnotationName); name != "" {
		if err := store.CheckName(name); err != nil {
			return err
		}
		if err := t.log.Push(t.store.NameUndo(name, id)); err != nil {
			return err
		}
		if err := t.store.TakeName(name, id); err != nil {
			return notExist(err)
		}
	}
	err = t.store.PutContainer(t.record, t.log.Push)
	if errors.Is(err, fs.ErrExist) {
		return errors.Join(err, t.undo())
	}
	return err
}

// notExist hides fs.ErrExist in errors that do not speak of the id.
func notExist(err error) error {
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%v", err)
	}
	return err
}

// undo takes back what take has done.
func (t *taking) undo() error {
	if t.id == "" {
		return nil
	}
	id := t.id
	t.id = ""
	return errors.Join(t.log.Replay(""), t.busy.Done(), t.host.RemoveRun(id))
}
