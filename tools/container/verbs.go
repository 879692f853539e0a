package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/applet"
	"shocker.sh/lib/container"
	"shocker.sh/lib/stage"
	"shocker.sh/lib/store"
	"shocker.sh/tools/internal/porcelain"
)

// Runtime is what the verbs need of the last stage, which the dispatcher
// knows.
type Runtime struct {
	// Exec runs a program in a running container and returns its status.
	Exec   func(ctx context.Context, host stage.Host, id string, o ExecOptions) (int, error)
	Logs   func(ctx context.Context, host stage.Host, id string, out, errOut io.Writer, o LogOptions) error
	Signal func(host stage.Host, id string, sig unix.Signal) error
	// ParseSignal reads a signal's number or name.
	ParseSignal func(string) (unix.Signal, error)
	// Stop ends a container, by force after the timeout.
	Stop func(ctx context.Context, host stage.Host, id string, timeout time.Duration) error
	// Wait waits for a container's end and returns its status.
	Wait func(ctx context.Context, host stage.Host, id string) (int, error)
}

// ExecOptions describe a further program in a container.
type ExecOptions struct {
	Args, Env []string
	Cwd, User string
	Terminal  bool
	Detach    bool
	In        *os.File // nil: /dev/null
	Out, Err  io.Writer
}

// LogOptions say what of a log is shown.
type LogOptions struct {
	Follow, Timestamps bool
	Tail               int // lines; negative: all
}

// errStopped is what can only be done to a running container.
func errStopped(id string) error {
	return fmt.Errorf("Container '%s' exists but is not running", id) //nolint:staticcheck // what users know
}

// find opens the store and finds the container that an argument calls.
func find(c *cli.Context, called string) (stage.Host, *store.Store, string, error) {
	host, st, err := porcelain.Open(c)
	if err != nil {
		return host, nil, "", err
	}
	id, err := st.FindContainer(called)
	return host, st, id, err
}

// running is find for what can only be done to a running container.
func running(c *cli.Context, called string) (stage.Host, string, error) {
	host, st, id, err := find(c, called)
	if err != nil {
		return host, "", err
	}
	ps, err := container.Get(host, st, id)
	if err == nil && ps.Status != container.Running && ps.Status != container.Paused {
		err = errStopped(id)
	}
	return host, id, err
}

// ExecCommand runs a program in a running container.
func (r *Runtime) ExecCommand() *cli.Command {
	return &cli.Command{
		Name:      "exec",
		Usage:     "run a program in a running container",
		ArgsUsage: "CONTAINER PROGRAM [ARG...]",
		Description: "For example:\n" +
			"  shocker exec -it web sh\n" +
			"  shocker exec web sh -c 'ps | grep httpd'\n" +
			"There is no shell unless one is called, other than with shocker run.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "detach", Aliases: []string{"d"}, Usage: "do not wait for it"},
			&cli.BoolFlag{Name: "interactive", Aliases: []string{"i"}, Usage: "let it read our stdin"},
			&cli.BoolFlag{Name: "tty", Aliases: []string{"t"}, Usage: "give it a terminal"},
			&cli.StringSliceFlag{Name: "env", Aliases: []string{"e"}, KeepSpace: true, Usage: "set `NAME=VALUE` in its environment"},
			&cli.StringFlag{Name: "workdir", Aliases: []string{"w"}, Usage: "start in directory `DIR`"},
			&cli.StringFlag{Name: "user", Aliases: []string{"u"}, Usage: "run as `USER[:GROUP]` of the container"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() < 2 {
				return applet.Usagef("want a container and a program (see %s --help)", c.App.HelpName)
			}
			host, id, err := running(c, c.Args().First())
			if err != nil {
				return err
			}
			streams := applet.Streams(c)
			o := ExecOptions{
				Args: c.Args().Tail(), Env: c.StringSlice("env"), Cwd: c.String("workdir"), User: c.String("user"),
				Terminal: c.Bool("tty"), Detach: c.Bool("detach"), Out: streams.Out, Err: streams.Err,
			}
			if c.Bool("interactive") {
				o.In = streams.In
			}
			return status(r.Exec(c.Context, host, id, o))
		},
	}
}

// status makes an error of a program's exit status.
func status(code int, err error) error {
	if code == 0 && err == nil {
		return nil
	}
	if code == 0 {
		code = applet.Failed
	}
	return &applet.ExitError{Code: code, Err: err}
}

// LogsCommand shows what a container's program has written.
func (r *Runtime) LogsCommand() *cli.Command {
	return &cli.Command{
		Name:      "logs",
		Usage:     "show what a container's program has written",
		ArgsUsage: "CONTAINER",
		Description: "For example:\n" +
			"  shocker logs -f -n 10 web",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on until the program has ended"},
			&cli.BoolFlag{Name: "timestamps", Aliases: []string{"t"}, Usage: "say when each line was written"},
			&cli.IntFlag{Name: "tail", Aliases: []string{"n"}, Usage: "only the last `N` lines", Value: -1, DefaultText: "all"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return applet.Usagef("want one container (see %s --help)", c.App.HelpName)
			}
			host, _, id, err := find(c, c.Args().First())
			if err != nil {
				return err
			}
			streams := applet.Streams(c)
			return r.Logs(c.Context, host, id, streams.Out, streams.Err, LogOptions{
				Follow: c.Bool("follow"), Timestamps: c.Bool("timestamps"), Tail: c.Int("tail"),
			})
		},
	}
}

// KillCommand sends a signal to containers.
func (r *Runtime) KillCommand() *cli.Command {
	return &cli.Command{
		Name:      "kill",
		Usage:     "send a signal to the first process of containers",
		ArgsUsage: "CONTAINER...",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "signal", Aliases: []string{"s"}, Usage: "`SIGNAL` by name or number", Value: "KILL"},
		},
		Action: func(c *cli.Context) error {
			sig, err := r.ParseSignal(c.String("signal"))
			if err != nil {
				return applet.Usagef("--signal: %w", err)
			}
			return porcelain.Each(c, func(called string) error {
				host, id, err := running(c, called)
				if err == nil {
					err = r.Signal(host, id, sig)
				}
				if err != nil {
					return err
				}
				return porcelain.Printf(c, "%s\n", id)
			})
		},
	}
}

// StopCommand stops containers.
func (r *Runtime) StopCommand() *cli.Command {
	return &cli.Command{
		Name:      "stop",
		Usage:     "ask containers to end, and kill those that do not",
		ArgsUsage: "CONTAINER...",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "time", Aliases: []string{"t"}, Usage: "`SECONDS` to wait before it is killed; -1: for as long as it takes", Value: 10},
		},
		Action: func(c *cli.Context) error {
			return porcelain.Each(c, func(called string) error {
				host, _, id, err := find(c, called)
				if err == nil {
					err = r.Stop(c.Context, host, id, patience(c.Int("time")))
				}
				if err == nil {
					// How it ended is not our question.
					if _, err = r.Wait(c.Context, host, id); c.Context.Err() == nil {
						err = nil
					}
				}
				if err != nil {
					return err
				}
				return porcelain.Printf(c, "%s\n", id)
			})
		},
	}
}

// patience is a number of seconds; a negative one has no end, as in docker stop.
func patience(seconds int) time.Duration {
	if seconds < 0 || seconds > int(math.MaxInt64/time.Second) {
		return math.MaxInt64
	}
	return time.Duration(seconds) * time.Second
}

// WaitCommand waits for containers.
func (r *Runtime) WaitCommand() *cli.Command {
	return &cli.Command{
		Name:      "wait",
		Usage:     "wait until containers have ended, and print their exit statuses",
		ArgsUsage: "CONTAINER...",
		Action: func(c *cli.Context) error {
			return porcelain.Each(c, func(called string) error {
				host, st, id, err := find(c, called)
				if err != nil {
					return err
				}
				ps, err := container.Get(host, st, id)
				if err == nil && ps.Status == container.Created {
					err = errors.New("container " + id + " has not been started")
				}
				if err != nil {
					return err
				}
				code, err := r.Wait(c.Context, host, id)
				if err != nil {
					return err
				}
				return porcelain.Printf(c, "%d\n", code)
			})
		},
	}
}
