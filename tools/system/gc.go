// Package system is the porcelain of the whole: gc and parts.
package system

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"shocker.sh/lib/container"
	"shocker.sh/lib/stage"
	"shocker.sh/lib/store"
	"shocker.sh/lib/undo"
	verbs "shocker.sh/tools/container"
	"shocker.sh/tools/internal/porcelain"
)

// Gc returns the command that cleans up after commands that were killed.
func Gc(teardown func(stage.Host) error) *cli.Command {
	return &cli.Command{
		Name:  "gc",
		Usage: "clean up after commands that were killed",
		Description: "Undoes what commands left that died half-way, and what containers left that\n" +
			"died without their supervisor or lost their run dir, and removes what had come of\n" +
			"pulls that were cut.\n" +
			"What runs, what has exited in order, and a record parked between two stages stay\n" +
			"as they are.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "created", Usage: "also remove containers that were made and never started"},
		},
		Action: func(c *cli.Context) error {
			if err := porcelain.NoArgs(c); err != nil {
				return err
			}
			host, st, err := porcelain.Open(c)
			if err != nil {
				return err
			}
			removed, err := Collect(host, st, c.Bool("created"))
			for _, id := range removed {
				err = errors.Join(err, porcelain.Printf(c, "Removed: %s\n", id))
			}
			return errors.Join(err, verbs.Idle(host, st, teardown))
		},
	}
}

// Collect cleans up and returns the ids of the containers that it removed.
func Collect(host stage.Host, st *store.Store, created bool) (removed []string, _ error) {
	ids, err := candidates(host, st)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, id := range ids {
		gone, err := collect(host, st, id, created)
		if err != nil {
			errs = append(errs, err)
		}
		if gone && err == nil {
			removed = append(removed, id)
		}
	}
	errs = append(errs, container.SweepOrphans(host, st))
	_, err = st.SweepTemp()
	errs = append(errs, err, st.SweepPartial())
	_, err = st.SweepLayers()
	errs = append(errs, err)
	return removed, errors.Join(errs...)
}

// candidates are the containers that the store or the run dirs know of, and
// run dirs that were being made.
func candidates(host stage.Host, st *store.Store) ([]string, error) {
	ids, err := st.ContainerIDs()
	if err != nil {
		return nil, err
	}
	dirs, err := os.ReadDir(host.Run)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, d := range dirs {
		name := d.Name()
		isRunDir := strings.HasPrefix(name, ".new-") || store.IsContainerID(name)
		if !isRunDir && !strings.HasPrefix(name, ".") {
			_, err := os.Stat(filepath.Join(host.Run, name, "undo"))
			isRunDir = err == nil
			if _, err := os.Stat(filepath.Join(host.Run, name, "busy")); err == nil {
				isRunDir = true
			}
		}
		if isRunDir {
			ids = append(ids, name)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

func collect(host stage.Host, st *store.Store, id string, created bool) (gone bool, _ error) {
	log := undo.Open(host.RunDir(id))
	live, died, err := log.Working()
	if err != nil || live {
		return false, err
	}
	// Who waits for the end of the program also cleans up after it.
	supervised, err := container.Supervised(host.RunDir(id))
	if err != nil {
		return false, err
	}
	if supervised {
		if _, err := container.Get(host, st, id); errors.Is(err, store.ErrDamaged) {
			return false, err
		}
		return false, nil
	}
	c, err := container.Get(host, st, id)
	if errors.Is(err, store.ErrNoContainer) {
		// Killed before the container was there, or while it was removed.
		if err := container.RunsUnknown(host, id); err != nil {
			return false, err
		}
		return died || created, container.Remove(host, st, id)
	}
	if err != nil {
		return false, err
	}
	if c.Status == container.Running || c.Status == container.Paused {
		return false, nil
	}
	started := !c.State.Started.IsZero()
	switch {
	case died && !started, created && c.Status == container.Created, c.State.Remove:
		return true, container.Remove(host, st, id)
	case started:
		err := settle(host, st, c)
		if err == nil && died {
			err = forgetDead(log)
		}
		return false, err
	}
	return false, nil
}

// forgetDead takes away the marks of commands that were killed.
func forgetDead(log *undo.Log) error {
	busy, err := log.Begin("shocker-gc")
	if err != nil {
		return err
	}
	return busy.Done()
}

// settle does for a container whose supervisor died what that had to do at
// the end. How the program ended is not known to anybody any more.
func settle(host stage.Host, st *store.Store, c *container.Container) error {
	if err := container.Settle(host, c.ID); err != nil {
		return err
	}
	if !c.State.Finished.IsZero() {
		return nil
	}
	c.State.Finished = time.Now().UTC()
	return st.PutState(c.ID, c.State)
}
