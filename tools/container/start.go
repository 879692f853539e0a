package container

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"shocker.sh/lib/applet"
	"shocker.sh/lib/container"
	"shocker.sh/lib/record"
	"shocker.sh/lib/stage"
	"shocker.sh/lib/undo"
	"shocker.sh/tools/internal/porcelain"
	"shocker.sh/tools/shocker-spec/spec"
)

// Start returns the command that starts containers again: their record goes
// through the stages once more. Its root and cgroup are still there, the
// other stages make theirs anew.
func (p *Pipeline) Start() *cli.Command {
	return &cli.Command{
		Name:      "start",
		Usage:     "start containers whose program has ended, or has not been started",
		ArgsUsage: "CONTAINER...",
		Description: "The program runs again as it did, on the files that it left. For example:\n" +
			"  shocker start -ai work",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "attach", Aliases: []string{"a"}, Usage: "show its output, and exit with its status"},
			&cli.BoolFlag{Name: "interactive", Aliases: []string{"i"}, Usage: "attach, and let it read our stdin"},
		},
		Action: func(c *cli.Context) error {
			attach := c.Bool("attach") || c.Bool("interactive")
			if attach && c.NArg() != 1 {
				return applet.Usagef("only one container can be attached to (see %s --help)", c.App.HelpName)
			}
			return porcelain.Each(c, func(called string) error { return p.start(c, called, attach) })
		},
	}
}

func (p *Pipeline) start(c *cli.Context, called string, attach bool) (retErr error) {
	host, st, id, err := find(c, called)
	if err != nil {
		return err
	}
	ps, err := container.Get(host, st, id)
	if err != nil {
		return err
	}
	if ps.Status == container.Running || ps.Status == container.Paused {
		return fmt.Errorf("container %s %w already", id, container.ErrRunning)
	}
	dir, err := host.MakeRun(id)
	if err != nil {
		return err
	}
	log := undo.Open(dir)
	live, _, err := log.Working()
	if err != nil || live {
		return errors.Join(err, fmt.Errorf("container %s: another command is at work on it", id))
	}
	busy, err := log.Begin(p.Last.Name)
	if err != nil {
		return err
	}
	reached := false
	started := func() error {
		reached = true
		return busy.Done()
	}
	defer func() {
		if !reached {
			retErr = errors.Join(retErr, log.Replay("", undo.Exit), busy.Done())
		}
	}()
	// What a killed supervisor or a parked pipeline left.
	if err := log.Replay("", undo.Exit); err != nil {
		return err
	}
	r := ps.Record
	if err := spec.Renew(host, r, log); err != nil {
		return err
	}
	return p.through(c, host, log, r, func(c *cli.Context, host stage.Host, r *record.Record) error {
		return p.Last.Start(c, host, r, attach, started)
	})
}

// through lets a record go through the stages between the first and the last,
// and hands it to last.
func (p *Pipeline) through(c *cli.Context, host stage.Host, log *undo.Log, r *record.Record, last func(*cli.Context, stage.Host, *record.Record) error) error {
	for _, s := range p.Stages {
		if err := p.stage(c.Context, c, host, s, log, &r); err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	return last(c, host, r)
}
