package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/applet"
	"shocker.sh/lib/record"
	"shocker.sh/lib/stage"
	"shocker.sh/shocker-cg/cg"
	"shocker.sh/shocker-run/run"
	"shocker.sh/tools/container"
)

// runtime is the last stage as the verbs see it.
var runtime = container.Runtime{
	Exec: func(ctx context.Context, host stage.Host, id string, o container.ExecOptions) (int, error) {
		return run.Exec(ctx, host, id, run.ExecOptions(o))
	},
	Logs: func(ctx context.Context, host stage.Host, id string, out, errOut io.Writer, o container.LogOptions) error {
		return run.Logs(ctx, host, id, out, errOut, run.LogOptions(o))
	},
	Signal:      run.Signal,
	ParseSignal: run.ParseSignal,
	Stop:        run.Stop,
	Wait:        run.Wait,
}

// start runs the record of a container that is started again.
func start(c *cli.Context, host stage.Host, r *record.Record, attach bool, started func() error) error {
	streams := applet.Streams(c)
	o := run.Options{Started: started}
	if !attach {
		code, err := run.Detach(c.Context, host, r, o)
		if err != nil {
			return &applet.ExitError{Code: code, Err: err}
		}
		_, err = fmt.Fprintln(streams.Out, r.ID())
		return err
	}
	o.Out, o.Err = streams.Out, streams.Err
	if c.Bool("interactive") {
		o.In = streams.In
	}
	code, err := run.Run(c.Context, host, r, o)
	if code == 0 && err == nil {
		return nil
	}
	return &applet.ExitError{Code: code, Err: err}
}

// kill ends a container. Another's last stage left us no process to signal:
// then the undo of its cgroup does.
func kill(ctx context.Context, host stage.Host, id string) error {
	if err := run.Signal(host, id, unix.SIGKILL); err != nil && !errors.Is(err, run.ErrNotRunning) {
		return err
	}
	// How it ended does not matter, nor that --rm has removed it.
	if _, err := run.Wait(ctx, host, id); err != nil && ctx.Err() != nil {
		return err
	}
	return nil
}

// freeze stops a container's processes for a snapshot.
func freeze(host stage.Host, r *record.Record) (thaw func() error, err error) {
	group, err := cg.Of(host, r)
	if err != nil {
		return nil, err
	}
	if err := group.Freeze(context.Background()); err != nil {
		return nil, errors.Join(err, group.Thaw())
	}
	return group.Thaw, nil
}

// imageSide is a verb that the other executable has. That is looked for beside
// this one, and not along PATH.
func imageSide(verb, synopsis string) applet.Applet {
	return applet.Applet{
		Name:     verb,
		Synopsis: synopsis,
		Run: func(_ context.Context, _ applet.IO, args []string) error {
			self, err := os.Executable()
			if err != nil {
				return err
			}
			program := filepath.Join(filepath.Dir(self), "shocker-image")
			err = unix.Exec(program, append([]string{"shocker " + verb}, args[1:]...), os.Environ())
			return fmt.Errorf("execute %s, which has to be beside %s: %w", program, self, err)
		},
	}
}
