// Package image is the porcelain of images: images, init, commit and rmi.
package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"

	"shocker.sh/lib/applet"
	"shocker.sh/lib/btrfs"
	"shocker.sh/lib/container"
	"shocker.sh/lib/record"
	"shocker.sh/lib/stage"
	"shocker.sh/lib/store"
	"shocker.sh/tools/internal/porcelain"
)

// ErrInUse is an image that containers were made from.
var ErrInUse = errors.New("is in use")

// Images lists the images.
var Images = &cli.Command{
	Name:  "images",
	Usage: "list the images",
	Flags: []cli.Flag{
		&cli.BoolFlag{Name: "l", Usage: "long: digest and time of creation too"},
		&cli.BoolFlag{Name: "q", Usage: "ids only"},
		&cli.BoolFlag{Name: "json", Usage: "one JSON object a line"},
	},
	Action: func(c *cli.Context) error {
		if err := porcelain.NoArgs(c); err != nil {
			return err
		}
		_, st, err := porcelain.Open(c)
		if err != nil {
			return err
		}
		images, damaged := st.Images()
		list := porcelain.List{Header: []string{"IMAGE_ID", "SOURCE"}}
		if c.Bool("l") {
			list.Header = append(list.Header, "DIGEST", "CREATED")
		}
		for _, i := range images {
			row := porcelain.Row{ID: i.ID, Columns: []string{i.ID, i.Source}, JSON: show(i)}
			if c.Bool("l") {
				row.Columns = append(row.Columns, i.Digest, i.Created.Format(time.RFC3339))
			}
			list.Rows = append(list.Rows, row)
		}
		return errors.Join(list.Print(c), damaged)
	},
}

// shown is an image as scripts see it: its file with its id.
type shown struct {
	ID string `json:"id"`
	*store.Image
}

func show(i *store.Image) any { return shown{i.ID, i} }

// Inspect prints the whole of an image.
func Inspect(st *store.Store, called string) (any, error) {
	i, err := st.FindImage(called)
	if err != nil {
		return nil, err
	}
	return show(i), nil
}

// Init makes an image from a directory.
var Init = &cli.Command{
	Name:      "init",
	Usage:     "make an image from a directory",
	ArgsUsage: "DIR",
	Description: "The directory is copied: a root file system, with /bin/sh and what it needs. Its path\n" +
		"is the image's source. For example:\n" +
		"  debootstrap --variant=minbase bookworm /tmp/debian && shocker init /tmp/debian",
	Action: func(c *cli.Context) (retErr error) {
		if c.NArg() != 1 {
			return applet.Usagef("want one directory (see %s --help)", c.App.HelpName)
		}
		_, st, err := porcelain.Open(c)
		if err != nil {
			return err
		}
		dir := c.Args().First()
		img, err := build(st, func() (*store.Image, error) {
			return described(dir), nil
		}, func(path string) error {
			if err := btrfs.Create(path); err != nil {
				return err
			}
			return copyTree(c.Context, dir, path)
		}, st.PutImage)
		if err != nil {
			return fmt.Errorf("make an image from %s: %w", dir, err)
		}
		return porcelain.Printf(c, "Created: %s\n", img.ID)
	},
}

// described is the image of a directory, as far as it is known without a layer.
func described(dir string) *store.Image {
	img := &store.Image{Source: dir, Created: time.Now().UTC()}
	img.Config.Created = &img.Created
	img.Config.Platform = store.Platform{Architecture: porcelain.Architecture, OS: "linux"}
	img.Config.Config.Cmd = []string{"/bin/sh"}
	img.Config.RootFS.Type = "layers"
	img.Config.History = []store.History{{Created: &img.Created, CreatedBy: "shocker init " + dir}}
	return img
}

// build makes an image: describe says what it is and what lies below, fill puts
// the new layer into a subvolume, put makes the image exist. From the first to
// the last nothing is swept: until then the layers may be nobody's.
func build(st *store.Store, describe func() (*store.Image, error), fill func(path string) error, put func(*store.Image) error) (_ *store.Image, retErr error) {
	release, err := st.Use()
	if err != nil {
		return nil, err
	}
	defer func() { retErr = errors.Join(retErr, release()) }()
	img, err := describe()
	if err == nil {
		err = addLayer(st, img, fill)
	}
	if err == nil {
		err = put(img)
	}
	return img, err
}

// addLayer makes a layer of what fill puts into a subvolume, and adds it to
// the image.
func addLayer(st *store.Store, img *store.Image, fill func(path string) error) (retErr error) {
	temp, done, err := st.Temp("layer")
	if err != nil {
		return err
	}
	defer func() { retErr = errors.Join(retErr, done()) }()
	path := filepath.Join(temp, "layer")
	if err := fill(path); err != nil {
		return err
	}
	uuid, err := btrfs.UUID(path)
	if err != nil {
		return err
	}
	name := "local-" + uuid
	if err := st.PutLayer(path, name); err != nil {
		return err
	}
	img.Layers = append(img.Layers, name)
	return nil
}

// Rmi removes images.
var Rmi = &cli.Command{
	Name:      "rmi",
	Usage:     "remove images",
	ArgsUsage: "IMAGE...",
	Action: func(c *cli.Context) error {
		host, st, err := porcelain.Open(c)
		if err != nil {
			return err
		}
		return porcelain.Each(c, func(called string) error { return Remove(c, host, st, called) })
	},
}

// Remove removes an image that no container was made from.
func Remove(c *cli.Context, host stage.Host, st *store.Store, called string) error {
	id := called
	switch img, err := st.FindImage(called); {
	case err == nil:
		id = img.ID
	case !errors.Is(err, store.ErrDamaged): // only one that is called by its id
		return err
	}
	containers, err := container.List(host, st)
	if err != nil {
		return err
	}
	for _, ps := range containers {
		if ps.Record.Annotation(record.AnnotationImage) == id {
			return fmt.Errorf("image %s %w by container %s: remove that first", id, ErrInUse, ps.ID)
		}
	}
	if err := st.RemoveImage(id); err != nil {
		return err
	}
	_, err = st.SweepLayers()
	return errors.Join(porcelain.Printf(c, "Removed: %s\n", id), err)
}

// Commit returns the command that makes an image of a container. freeze
// stops a running container and returns what lets it go on.
func Commit(freeze func(stage.Host, *record.Record) (thaw func() error, err error)) *cli.Command {
	return &cli.Command{
		Name:      "commit",
		Usage:     "make an image of a container, in the place of another if one is named",
		ArgsUsage: "CONTAINER [IMAGE]",
		Description: "A named image is replaced: the new one has its id. Without one, the new image has\n" +
			"the source of the container's image, and as the newest is what that source calls.\n" +
			"For example:\n" +
			"  shocker commit web\n" +
			"  shocker commit web debian:12",
		Action: func(c *cli.Context) error {
			if c.NArg() < 1 || c.NArg() > 2 {
				return applet.Usagef("want a container, and an image if it is to be replaced (see %s --help)", c.App.HelpName)
			}
			host, st, err := porcelain.Open(c)
			if err != nil {
				return err
			}
			id, err := st.FindContainer(c.Args().First())
			if err != nil {
				return err
			}
			ps, err := container.Get(host, st, id)
			if err != nil {
				return err
			}
			var old *store.Image
			if called := c.Args().Get(1); called != "" {
				old, err = st.FindImage(called)
				if errors.Is(err, store.ErrNoImage) {
					err = fmt.Errorf("%w, and only one that does can be replaced; name none for a new image", err)
				}
				if err != nil {
					return err
				}
			}
			img, err := build(st, func() (*store.Image, error) {
				return committed(st, ps)
			}, func(path string) (retErr error) {
				if ps.Status == container.Running {
					thaw, err := freeze(host, ps.Record)
					if err != nil {
						return err
					}
					defer func() { retErr = errors.Join(retErr, thaw()) }()
				}
				return btrfs.Snapshot(st.Rootfs(id), path, false)
			}, func(img *store.Image) error {
				if old != nil {
					return st.ReplaceImage(old.ID, img)
				}
				return st.PutImage(img)
			})
			if err != nil {
				return fmt.Errorf("commit %s: %w", id, err)
			}
			if old == nil {
				return porcelain.Printf(c, "Created: %s\n", img.ID)
			}
			if _, err := st.SweepLayers(); err != nil {
				return err
			}
			return porcelain.Printf(c, "Removed: %s\nCreated: %s\n", old.ID, img.ID)
		},
	}
}

// committed is the image that a container was made from, as far as that is
// still known, for one more layer.
func committed(st *store.Store, ps *container.Container) (*store.Image, error) {
	img := &store.Image{Source: ps.Record.Annotation(record.AnnotationSource)}
	base, err := st.Image(ps.Record.Annotation(record.AnnotationImage))
	switch {
	case err == nil:
		img.Layers = append(img.Layers, base.Layers...)
		// A copy by value of the maps and slices that we add to.
		data, err := json.Marshal(base.Config)
		if err == nil {
			err = json.Unmarshal(data, &img.Config)
		}
		if err != nil {
			return nil, err
		}
	case errors.Is(err, store.ErrNoImage):
		img.Config.Platform = store.Platform{Architecture: porcelain.Architecture, OS: "linux"}
	default:
		return nil, err
	}
	img.Created = time.Now().UTC()
	img.Config.Created = &img.Created
	img.Config.History = append(img.Config.History, store.History{
		Created: &img.Created, CreatedBy: "shocker commit " + ps.ID,
	})
	return img, nil
}
