// Package container answers what every command asks about a container: does
// it run, what became of it, and how does it go away. Whether it runs is asked
// of the kernel and never read from a file.
package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"shocker.sh/lib/btrfs"
	"shocker.sh/lib/record"
	"shocker.sh/lib/stage"
	"shocker.sh/lib/store"
	"shocker.sh/lib/undo"
)

// Status of a container.
type Status string

// The states that a container can be in. Created is one whose program has not
// been started, be it parked between two stages or being made.
const (
	Created Status = "created"
	Running Status = "running"
	Paused  Status = "paused"
	Exited  Status = "exited"
)

// Container is one container as it is now.
type Container struct {
	ID     string
	Record *record.Record
	State  *store.State
	Status Status
}

// Get looks at the container of that id, or returns store.ErrNoContainer, or
// store.ErrDamaged.
func Get(host stage.Host, st *store.Store, id string) (*Container, error) {
	r, err := st.Record(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, store.NoContainer(id)
	}
	var state *store.State
	if err == nil {
		state, err = st.State(id)
	}
	if err != nil {
		return nil, fmt.Errorf("container %s %w, remove it with rm -f: %w", id, store.ErrDamaged, err)
	}
	c := &Container{ID: id, Record: r, State: state}
	c.Status, err = status(host, c)
	return c, err
}

// List looks at every container. With an error come those that could be read.
func List(host stage.Host, st *store.Store) ([]*Container, error) {
	ids, err := st.ContainerIDs()
	if err != nil {
		return nil, err
	}
	var all []*Container
	var errs []error
	for _, id := range ids {
		c, err := Get(host, st, id)
		if errors.Is(err, store.ErrNoContainer) {
			continue // removed meanwhile
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, c)
	}
	return all, errors.Join(errs...)
}

func status(host stage.Host, c *Container) (Status, error) {
	group, err := cgroup(host, c)
	if err != nil {
		return "", err
	}
	running, frozen, err := populated(host, group)
	switch {
	case err != nil:
		return "", err
	case running && frozen:
		return Paused, nil
	case running:
		return Running, nil
	case !c.State.Started.IsZero():
		return Exited, nil
	}
	// Another's last stage writes no state, but it calls our hook at the end.
	if _, err := os.Stat(stopped(host.RunDir(c.ID))); err == nil {
		return Exited, nil
	}
	return Created, nil
}

func stopped(runDir string) string { return filepath.Join(runDir, "stopped") }

// Poststop is what the hook of that name does, by which any runtime cleans up
// after our stages when the program has ended: it replays the undo of class
// exit. Of what the hook is told only the run dir is certain.
func Poststop(runDir string) error {
	err := undo.Open(runDir).Replay("", undo.Exit)
	// rm may have been faster.
	if werr := os.WriteFile(stopped(runDir), nil, 0o600); werr != nil && !errors.Is(werr, fs.ErrNotExist) {
		err = errors.Join(err, werr)
	}
	return err
}

// ErrRunning is a container that must not run for what is asked.
var ErrRunning = errors.New("is running")

// Remove undoes everything of a container that does not run and forgets it. If
// it is killed, gc goes on with it.
func Remove(host stage.Host, st *store.Store, id string) error {
	state, err := st.State(id)
	if err != nil {
		state = &store.State{} // what it said does not matter any more
	}
	if !state.Remove {
		state.Remove = true
		if err := st.PutState(id, state); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove %s: %w", id, err)
		}
	}
	log := undo.Open(host.RunDir(id))
	lost, err := log.Lost()
	if err == nil && lost {
		err = errors.Join(removeGroup(host, st, id), reclaim(host, id))
	}
	if err == nil {
		err = log.Replay("")
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", id, err)
	}
	if err := forget(st, id); err != nil {
		return fmt.Errorf("remove %s: %w", id, err)
	}
	return host.RemoveRun(id)
}

// forget removes what the store still has of a container whose run dir went
// with a restart of the machine.
func forget(st *store.Store, id string) error {
	names, err := names(st, id)
	if err != nil {
		return err
	}
	for _, name := range names {
		path := st.Path("names", name)
		if owner, err := os.ReadFile(path); err == nil && string(owner) == id {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	err = btrfs.Delete(st.Rootfs(id))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, btrfs.ErrNotSubvolume) {
		return err
	}
	return os.RemoveAll(filepath.Clean(st.Container(id)))
}

// names are those that a container may have: the one in its record, or any if
// that cannot be read.
func names(st *store.Store, id string) ([]string, error) {
	if r, err := st.Record(id); err == nil {
		if name := r.Annotation(record.AnnotationName); name != "" {
			return []string{name}, nil
		}
		return nil, nil
	}
	dir, err := os.Open(st.Path("names"))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Readdirnames(-1)
}
