// Package subvol is shocker-subvol, the stage that gives a container its
// root: a snapshot of its image's top layer, attached id-mapped at
// RUN/ID/rootfs, so that on disk ids count from 0 whoever runs it.
package subvol

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"

	"shocker.sh/lib/applet"
	"shocker.sh/lib/btrfs"
	"shocker.sh/lib/container"
	"shocker.sh/lib/record"
	"shocker.sh/lib/stage"
	"shocker.sh/lib/store"
	"shocker.sh/lib/sys"
	"shocker.sh/lib/undo"
)

// Name of the stage.
const Name = "shocker-subvol"

// Stage is shocker-subvol.
var Stage = applet.Stage{
	Name:     Name,
	Synopsis: "give a container its root, a btrfs snapshot of its image",
	Description: "As a stage, `up` makes the snapshot and sets the record's root.path. A root\n" +
		"that is there from an earlier start is used again.",
	Open:     open,
	Commands: []*cli.Command{list},
}

var (
	// ErrNoImage is a record that names no image to make a root of.
	ErrNoImage = errors.New("the record names no image")
	// ErrAttached is a root that is attached already.
	ErrAttached = errors.New("the root is attached already")
)

type handler struct {
	host  stage.Host
	store *store.Store
}

func open(host stage.Host, c *cli.Context) (stage.Handler, error) {
	st, err := store.Open(host.Store, applet.Talk(applet.Streams(c), Name))
	if err != nil {
		return nil, err
	}
	return &handler{host, st}, nil
}

// Up makes the snapshot and attaches it.
func (h *handler) Up(_ context.Context, r *record.Record) (retErr error) {
	log := undo.Open(h.host.RunDir(r.ID()))
	var done []*undo.Entry
	defer func() {
		for i := len(done) - 1; retErr != nil && i >= 0; i-- {
			retErr = errors.Join(retErr, log.Undo(done[i]))
		}
	}()
	push := func(e *undo.Entry) error {
		e.Stage = Name
		if err := log.Push(e); err != nil {
			return err
		}
		done = append(done, e)
		return nil
	}

	root := h.store.Rootfs(r.ID())
	if _, err := btrfs.UUID(root); errors.Is(err, fs.ErrNotExist) {
		if err := h.snapshot(r, root, push, log); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	var maps Mappings
	if _, err := r.Get(&maps, "linux"); err != nil {
		return err
	}
	if len(maps.UIDs) == 0 {
		return r.Set(root, "root", "path")
	}
	target := filepath.Join(h.host.RunDir(r.ID()), "rootfs")
	if mounted, err := sys.IsMountPoint(target); err != nil || mounted {
		return errors.Join(err, fmt.Errorf("%s: %w", target, ErrAttached))
	}
	if err := push(&undo.Entry{Class: undo.Exit, Op: undo.OpUnmount, Path: target}); err != nil {
		return err
	}
	if err := os.Mkdir(target, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := Attach(root, target, maps); err != nil {
		return err
	}
	return r.Set(target, "root", "path")
}

func (h *handler) snapshot(r *record.Record, root string, push func(*undo.Entry) error, log *undo.Log) error {
	id := r.Annotation(record.AnnotationImage)
	if id == "" {
		return fmt.Errorf("%w: it has no annotation %s", ErrNoImage, record.AnnotationImage)
	}
	img, err := h.store.Image(id)
	if err != nil {
		return err
	}
	entry := &undo.Entry{Class: undo.Rm, Op: undo.OpSubvolume, Path: root}
	if err := push(entry); err != nil {
		return err
	}
	if err := btrfs.Snapshot(h.store.Layer(img.Top()), root, false); err != nil {
		return err
	}
	if entry.UUID, err = btrfs.UUID(root); err != nil {
		return err
	}
	return log.Update(entry)
}

// Down detaches the root and deletes it.
func (h *handler) Down(_ context.Context, r *record.Record) error {
	c, err := container.Get(h.host, h.store, r.ID())
	if err == nil && (c.Status == container.Running || c.Status == container.Paused) {
		return fmt.Errorf("%w: its root would be deleted under it; stop it first", container.ErrRunning)
	}
	if err != nil && !errors.Is(err, store.ErrNoContainer) {
		return err
	}
	return undo.Open(h.host.RunDir(r.ID())).Replay(Name)
}

// Check verifies that root.path is the root of a tree.
func (h *handler) Check(_ context.Context, r *record.Record) error {
	var root specs.Root
	if _, err := r.Get(&root, "root"); err != nil {
		return err
	}
	st, err := os.Stat(root.Path)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return fmt.Errorf("root.path %s is not a directory", root.Path)
	}
	if _, err := btrfs.UUID(h.store.Rootfs(r.ID())); err != nil {
		return err
	}
	if root.Path == h.store.Rootfs(r.ID()) {
		return nil
	}
	if mounted, err := sys.IsMountPoint(root.Path); err != nil || !mounted {
		return errors.Join(err, fmt.Errorf("nothing is attached at %s", root.Path))
	}
	return nil
}

var list = &cli.Command{
	Name:  "list",
	Usage: "list the containers' subvolumes: id, UUID and path, one tab between",
	Action: func(c *cli.Context) error {
		if err := applet.NeedRoot(); err != nil {
			return err
		}
		io := applet.Streams(c)
		st, err := store.Open(stage.FromEnv().Store, applet.Talk(io, Name))
		if err != nil {
			return err
		}
		ids, err := st.ContainerIDs()
		if err != nil {
			return err
		}
		for _, id := range ids {
			uuid, err := btrfs.UUID(st.Rootfs(id))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil {
				_, err = fmt.Fprintf(io.Out, "%s\t%s\t%s\n", id, uuid, st.Rootfs(id))
			}
			if err != nil {
				return err
			}
		}
		return nil
	},
}
