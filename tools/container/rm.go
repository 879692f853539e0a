package container

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"shocker.sh/lib/container"
	"shocker.sh/lib/stage"
	"shocker.sh/lib/store"
	"shocker.sh/lib/undo"
	"shocker.sh/tools/image"
	"shocker.sh/tools/internal/porcelain"
)

// Rm returns the command that removes containers, and images. kill ends a
// container and returns when its supervisor has done its part; teardown takes
// the network of the host away when no container is left.
func Rm(kill func(ctx context.Context, host stage.Host, id string) error, teardown func(stage.Host) error) *cli.Command {
	return &cli.Command{
		Name:      "rm",
		Usage:     "remove containers, or images by their id",
		ArgsUsage: "CONTAINER|IMAGE...",
		Description: "For example, all that there are, running or not:\n" +
			"  shocker rm -f $(shocker ps -q)",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "kill what still runs"},
		},
		Action: func(c *cli.Context) error {
			host, st, err := porcelain.Open(c)
			if err != nil {
				return err
			}
			err = porcelain.Each(c, func(called string) error {
				if strings.HasPrefix(called, "img_") {
					return image.Remove(c, host, st, called)
				}
				return remove(c, host, st, called, kill)
			})
			return errors.Join(err, Idle(host, st, teardown))
		},
	}
}

func remove(c *cli.Context, host stage.Host, st *store.Store, called string, kill func(context.Context, stage.Host, string) error) (retErr error) {
	id, err := st.FindContainer(called)
	if err != nil {
		return err
	}
	dir, err := host.MakeRun(id)
	if err != nil {
		return err
	}
	log := undo.Open(dir)
	live, _, err := log.Working()
	if err != nil {
		return err
	}
	ps, err := container.Get(host, st, id)
	unknown := errors.Is(err, store.ErrDamaged) || errors.Is(err, store.ErrNoContainer)
	if err != nil && !(unknown && c.Bool("force")) {
		return err
	}
	running := unknown || ps.Status == container.Running || ps.Status == container.Paused
	if running && !c.Bool("force") {
		return fmt.Errorf("container %s %w: stop it first, or use rm -f", id, container.ErrRunning)
	}
	if live && !c.Bool("force") {
		return fmt.Errorf("container %s: another command is at work on it", id)
	}
	supervised, err := container.Supervised(host.RunDir(id))
	if err != nil {
		return err
	}
	if running || supervised {
		if err := kill(c.Context, host, id); err != nil {
			return err
		}
	}
	busy, err := log.Begin("shocker-rm")
	if err != nil {
		return err
	}
	defer func() { retErr = errors.Join(retErr, busy.Done()) }()
	// The undo of the cgroup kills what is still in it.
	if err := container.Remove(host, st, id); err != nil {
		return err
	}
	return porcelain.Printf(c, "Removed: %s\n", id)
}

// Idle takes away what belongs to the host and not to a container, once no
// container is left: the bridge, the NAT rules, the mount of the run dirs.
func Idle(host stage.Host, st *store.Store, teardown func(stage.Host) error) error {
	ids, err := st.ContainerIDs()
	if err != nil || len(ids) > 0 {
		return err
	}
	if err := teardown(host); err != nil {
		return err
	}
	return host.UnmountRun()
}
