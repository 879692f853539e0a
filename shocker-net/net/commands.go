package net

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/applet"
	"shocker.sh/lib/record"
	"shocker.sh/lib/stage"
	"shocker.sh/shocker-net/internal/nsdo"
)

var commands = []*cli.Command{
	{
		Name:      "list",
		Usage:     "list the leased addresses: address and container, one tab between",
		ArgsUsage: " ",
		Action: func(c *cli.Context) error {
			h := stage.FromEnv()
			entries, err := os.ReadDir(h.Leases())
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			for _, e := range entries {
				id, err := os.ReadFile(filepath.Join(h.Leases(), e.Name()))
				if errors.Is(err, fs.ErrNotExist) || strings.HasPrefix(e.Name(), ".") {
					continue
				}
				if err == nil {
					_, err = fmt.Fprintf(applet.Streams(c).Out, "%s\t%s\n", e.Name(), id)
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	},
	{
		Name:            "exec",
		Usage:           "run a program of the host in a container's network namespace",
		ArgsUsage:       "ID [--] PROGRAM [ARGUMENT...]",
		SkipFlagParsing: true, // the program's own are behind
		Action:          execute,
	},
	{
		Name:      "teardown",
		Usage:     "take the bridge, forwarding and the rules away, if no container has an address",
		ArgsUsage: " ",
		Action: func(*cli.Context) error {
			if err := applet.NeedRoot(); err != nil {
				return err
			}
			return Teardown(stage.FromEnv())
		},
	},
}

// execute becomes the program, in the container's network namespace.
func execute(c *cli.Context) error {
	args := c.Args().Slice()
	if len(args) > 1 && args[1] == "--" {
		args = append(args[:1], args[2:]...)
	}
	if len(args) < 2 {
		return applet.Usagef("exec takes a container's id and a program")
	}
	if err := record.CheckID(args[0]); err != nil {
		return err
	}
	program, err := exec.LookPath(args[1])
	if err != nil {
		return &applet.ExitError{Code: applet.NotFound, Err: err}
	}
	path := filepath.Join(stage.FromEnv().RunDir(args[0]), "ns", "net")
	ns, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("network namespace of %s: %w", args[0], err)
	}
	return nsdo.Do(ns, func() error {
		err := unix.Exec(program, args[1:], os.Environ())
		return &applet.ExitError{Code: applet.NotExecutable, Err: &os.PathError{Op: "execute", Path: program, Err: err}}
	})
}
