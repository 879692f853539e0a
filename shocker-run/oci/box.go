package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/cgroup"
	"shocker.sh/lib/spawn"
	"shocker.sh/lib/sys"
	"shocker.sh/lib/undo"
	"shocker.sh/shocker-run/internal/container"
	"shocker.sh/shocker-run/internal/systemd"
)

// box is one container: what is kept of it.
type box struct {
	tool *tool
	dir  string
	kept
}

// kept is state.json.
type kept struct {
	ID      string         `json:"id"`
	Bundle  string         `json:"bundle"`
	Created time.Time      `json:"created"`
	Process spawn.Identity `json:"process"`
	// Cgroup is the container's group in every hierarchy.
	Cgroup cgroup.Saved `json:"cgroup"`
}

// checkID takes what runc takes.
func checkID(id string) error {
	other := strings.ContainsFunc(id, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && !strings.ContainsRune("_+.-", r)
	})
	if len(id) == 0 || len(id) > 255 || other || id == "." || id == ".." {
		return fmt.Errorf("%w: %q: letters, digits and _ + . - are taken", ErrInvalidID, id)
	}
	return nil
}

// newBox takes an id. On error of a later step the caller discards it.
func (t *tool) newBox(id, bundle string) (*box, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(t.root, 0o700); err != nil {
		return nil, err
	}
	b := &box{tool: t, dir: filepath.Join(t.root, id), kept: kept{ID: id, Bundle: bundle, Created: time.Now().UTC()}}
	err := os.Mkdir(b.dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%s: %w", id, ErrExists)
	}
	return b, err
}

// open reads what is kept of a container. One whose create was killed has no
// state yet, and counts as not there, but to delete --force.
func (t *tool) open(id string) (*box, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	b := &box{tool: t, dir: filepath.Join(t.root, id)}
	data, err := os.ReadFile(b.path("state.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", id, ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &b.kept); err != nil {
		return nil, fmt.Errorf("state of %s: %w", id, err)
	}
	return b, nil
}

func (b *box) path(name string) string { return filepath.Join(b.dir, name) }

func (b *box) save() error {
	data, err := json.Marshal(b.kept)
	if err != nil {
		return err
	}
	return sys.WriteFile(b.path("state.json"), append(data, '\n'), 0o600, false)
}

// saveSpec writes down the config with which the container was created: its
// bundle may hold another one by and by.
func (b *box) saveSpec(text []byte) error {
	return sys.WriteFile(b.path("config.json"), text, 0o600, false)
}

func (b *box) spec() (*specs.Spec, error) {
	spec, _, err := readSpec(b.path("config.json"))
	return spec, err
}

// discard undoes all that was done for the container, and forgets it.
func (b *box) discard() error {
	g, err := b.group()
	if err == nil && b.Cgroup.Unit != nil {
		// systemd would give what is left in it time to end.
		err = errors.Join(g.Kill(context.Background()), g.Stop(context.Background()))
	}
	if err != nil {
		return fmt.Errorf("delete %s: %w", b.ID, err)
	}
	if err := undo.Open(b.dir).Replay(""); err != nil {
		return fmt.Errorf("delete %s: %w", b.ID, err)
	}
	return os.RemoveAll(b.dir)
}

// lock keeps others from changing the container until the file is closed.
func (b *box) lock() (*os.File, error) {
	f, err := os.OpenFile(b.path("lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", b.ID, ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	if err := sys.Flock(f, unix.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// group is the container's cgroup, as far as it is still there.
func (b *box) group() (*cgroup.Cgroup, error) {
	return cgroup.Load(b.Cgroup, func() cgroup.Manager { return systemd.Manager{} })
}

const paused specs.ContainerState = "paused" // beyond the specification, as runc's

// status asks the kernel what the container does. The process is nil if it has
// stopped; the caller closes it.
func (b *box) status() (specs.ContainerState, *os.File, error) {
	pidfd, err := b.Process.Open()
	if errors.Is(err, spawn.ErrGone) {
		return specs.StateStopped, nil, nil
	}
	if err != nil {
		return "", nil, err
	}
	status, err := b.alive()
	if err != nil {
		return "", nil, errors.Join(err, pidfd.Close())
	}
	return status, pidfd, nil
}

// alive is the status of a container whose process is there.
func (b *box) alive() (specs.ContainerState, error) {
	g, err := b.group()
	if err != nil {
		return "", err
	}
	if frozen, err := g.Frozen(); frozen || err != nil {
		return paused, err
	}
	held, err := spawn.Held(b.dir)
	if held {
		return specs.StateCreated, err
	}
	return specs.StateRunning, err
}

// options are those with which the container was created.
func (b *box) options() container.Options {
	return container.Options{
		ID: b.ID, Bundle: b.Bundle, HoldIn: b.dir,
		Warn: func(err error) { b.tool.log.warn(err.Error()) },
	}
}
