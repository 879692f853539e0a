package oci

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"

	"shocker.sh/lib/applet"
	"shocker.sh/lib/cgroup/group"
	"shocker.sh/lib/cgroup/stats"
	"shocker.sh/lib/spawn"
)

func (t *tool) eventsCommand() *cli.Command {
	return t.verb("events", "tell what a container uses, and when it wants for memory", []cli.Flag{
		&cli.DurationFlag{Name: "interval", Value: 5 * time.Second, Usage: "`TIME` between two figures, such as 500ms or 1m"},
		&cli.BoolFlag{Name: "stats", Usage: "print the figures once"},
	}, func(c *cli.Context, b *box) error {
		if c.Duration("interval") <= 0 {
			return applet.Usagef("--interval %s: want more than 0", c.Duration("interval"))
		}
		status, pidfd, err := b.status()
		if err != nil {
			return err
		}
		if status == specs.StateStopped {
			return ErrNotRunning
		}
		defer pidfd.Close()
		g, err := b.group()
		if err != nil {
			return err
		}
		e := &events{box: b, group: g.Group}
		if c.Bool("stats") {
			return e.figures()
		}
		ctx, stop := context.WithCancel(c.Context)
		defer stop()
		go func() {
			_ = spawn.WaitEnd(ctx, pidfd) // it fails only if we are told to stop
			stop()
		}()
		return e.follow(ctx, c.Duration("interval"))
	})
}

// events writes events, one JSON object a line.
type events struct {
	box   *box
	group *group.Group
	mu    sync.Mutex
}

func (e *events) write(event stats.Event) error {
	data, err := json.Marshal(event)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	_, err = e.box.tool.io.Out.Write(append(data, '\n'))
	return err
}

func (e *events) figures() error {
	data, err := stats.ReadFigures(e.group)
	if err != nil {
		return err
	}
	return e.write(stats.Event{Type: "stats", ID: e.box.ID, Data: data})
}

// follow writes events until the container has ended.
func (e *events) follow(ctx context.Context, interval time.Duration) error {
	failed := make(chan error, 1)
	go func() {
		var err error
		watch := stats.WatchOOM(ctx, e.group, func() {
			err = errors.Join(err, e.write(stats.Event{Type: "oom", ID: e.box.ID}))
		})
		if ctx.Err() == nil && (watch != nil || err != nil) {
			failed <- errors.Join(watch, err)
		}
	}()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case <-tick.C:
			if err := e.figures(); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
}
