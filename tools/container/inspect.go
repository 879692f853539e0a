package container

import (
	"encoding/json"
	"errors"

	"github.com/urfave/cli/v2"

	"shocker.sh/lib/applet"
	"shocker.sh/lib/container"
	"shocker.sh/lib/stage"
	"shocker.sh/lib/store"
	"shocker.sh/tools/image"
	"shocker.sh/tools/internal/porcelain"
)

// Inspect prints the whole of containers and images.
var Inspect = &cli.Command{
	Name:      "inspect",
	Usage:     "print the whole of a container or an image as JSON",
	ArgsUsage: "CONTAINER|IMAGE...",
	Action: func(c *cli.Context) error {
		host, st, err := porcelain.Open(c)
		if err != nil {
			return err
		}
		return porcelain.Each(c, func(called string) error {
			v, err := inspect(host, st, called)
			if errors.Is(err, store.ErrNoContainer) {
				var imageErr error
				if v, imageErr = image.Inspect(st, called); imageErr == nil || !errors.Is(imageErr, store.ErrNoImage) {
					err = imageErr
				}
			}
			if err != nil {
				return err
			}
			text, err := porcelain.JSON(v, "  ")
			if err != nil {
				return err
			}
			_, err = applet.Streams(c).Out.Write(text)
			return err
		})
	},
}

func inspect(host stage.Host, st *store.Store, called string) (any, error) {
	id, err := st.FindContainer(called)
	if err != nil {
		return nil, err
	}
	ps, err := container.Get(host, st, id)
	if err != nil {
		return nil, err
	}
	s, err := summarize(ps)
	if err != nil {
		return nil, err
	}
	return struct {
		*summary
		Log    string          `json:"log"`
		Rootfs string          `json:"rootfs"`
		RunDir string          `json:"runDir"`
		Record json.RawMessage `json:"record"`
	}{s, st.Log(id), st.Rootfs(id), host.RunDir(id), ps.Record.Line()}, nil
}
