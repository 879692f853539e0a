package cg

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"time"

	"github.com/urfave/cli/v2"

	"shocker.sh/lib/applet"
	"shocker.sh/lib/cgroup/group"
	"shocker.sh/lib/stage"
)

// patience limits how long freezing and killing may take.
const patience = 10 * time.Second

var commands = []*cli.Command{
	{
		Name:      "list",
		Usage:     "list the cgroups below the parent: id, processes, bytes of memory",
		ArgsUsage: " ",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "ids only"},
			&cli.BoolFlag{Name: "json", Usage: "one object a line"},
		},
		Action: list,
	},
	one("read", "print use and limits of a container's cgroup as JSON", func(_ context.Context, g Group, io applet.IO) error {
		s, err := g.Stats()
		if err != nil {
			return err
		}
		enc := json.NewEncoder(io.Out)
		enc.SetIndent("", "  ")
		return enc.Encode(s)
	}),
	one("freeze", "stop the processes of a container where they are", func(ctx context.Context, g Group, _ applet.IO) error {
		return g.Freeze(ctx)
	}),
	one("thaw", "let frozen processes go on", func(_ context.Context, g Group, _ applet.IO) error {
		return g.Thaw()
	}),
	one("kill", "kill every process in a container's cgroup, frozen or not", func(ctx context.Context, g Group, _ applet.IO) error {
		return g.Kill(ctx)
	}),
	{
		Name:            "exec",
		Usage:           "put this process into a container's cgroup and become PROGRAM",
		ArgsUsage:       "ID [--] PROGRAM [ARGUMENT...]",
		SkipFlagParsing: true, // the program's own are behind
		Action:          execute,
	},
}

// one is a command for one container.
func one(name, usage string, do func(context.Context, Group, applet.IO) error) *cli.Command {
	return &cli.Command{
		Name:      name,
		Usage:     usage,
		ArgsUsage: "ID",
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return applet.Usagef("%s takes one container id, not %d arguments", name, c.NArg())
			}
			g, err := Named(stage.FromEnv(), c.Args().First())
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context, patience)
			defer cancel()
			return do(ctx, g, applet.Streams(c))
		},
	}
}

// execute chains: it takes the group on, and executes the program in place of
// itself.
func execute(c *cli.Context) error {
	args := c.Args().Slice()
	if len(args) > 0 && (args[0] == "-h" || args[0] == "--help") {
		return cli.ShowSubcommandHelp(c)
	}
	if len(args) > 1 && args[1] == "--" {
		args = append(args[:1:1], args[2:]...)
	}
	if len(args) < 2 {
		return applet.Usagef("exec takes a container id and a program")
	}
	g, err := Named(stage.FromEnv(), args[0])
	if err != nil {
		return &applet.ExitError{Code: applet.NotStarted, Err: err}
	}
	program, err := exec.LookPath(args[1])
	if err != nil {
		return notExecuted(args[1], err)
	}
	err = g.Become(program, args[1:], os.Environ())
	if errors.Is(err, group.ErrExec) {
		return notExecuted(program, err)
	}
	return &applet.ExitError{Code: applet.NotStarted, Err: err}
}

func notExecuted(program string, err error) error {
	code := applet.NotExecutable
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
		code = applet.NotFound
	}
	return &applet.ExitError{Code: code, Err: fmt.Errorf("%s: %w", program, err)}
}
