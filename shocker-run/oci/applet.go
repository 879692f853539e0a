package oci

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"

	"shocker.sh/lib/applet"
	"shocker.sh/lib/stage"
	"shocker.sh/shocker-run/internal/container"
)

// defaultRoot is where containers are kept if nobody says: podman does not.
const defaultRoot = "/run/shocker-oci"

const synopsis = "OCI runtime: create, start, kill, delete and more, as engines call it"

// Applet is shocker-oci.
var Applet = applet.Applet{
	Name:     Name,
	Synopsis: synopsis,
	Run: func(ctx context.Context, io applet.IO, args []string) error {
		t := &tool{io: io, cgroupRoot: stage.FromEnv().CgroupRoot}
		cmd := t.command()
		err := plainly(applet.RunCommand(ctx, cmd, io, arrange(cmd, args)))
		if errors.Is(err, errVersion) {
			return t.printVersion()
		}
		t.log.failed(err)
		return err
	},
}

// plainly keeps the words by which engines tell what is wrong with a program out
// of all other errors.
func plainly(err error) error {
	if exit, ok := err.(*applet.ExitError); ok && exit.Err != nil {
		return &applet.ExitError{Code: exit.Code, Err: container.Plainly(exit.Err)}
	}
	return container.Plainly(err)
}

// tool is one call of the program.
type tool struct {
	io            applet.IO
	root          string // of all containers
	found         bool   // root is there, safe, and without links: see findRoot
	cgroupRoot    string
	systemdCgroup bool
	log           logger
}

func (t *tool) command() *cli.Command {
	return &cli.Command{
		Name:      Name,
		Usage:     synopsis,
		UsageText: Name + " [FLAG...] COMMAND [ARG...]",
		Description: "The container's config is config.json in its bundle (OCI runtime-spec). Containers\n" +
			"are kept below --root until they are deleted.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "root", Value: defaultRoot, Usage: "`DIR` where containers are kept; it should be on a tmpfs"},
			&cli.StringFlag{Name: "log", Usage: "append messages to `FILE` as well"},
			&cli.StringFlag{Name: "log-format", Value: "text", Usage: "`FORM` of the messages in that file: text or json"},
			&cli.BoolFlag{Name: "debug", Usage: "tell more in that file, or on stderr"},
			&cli.BoolFlag{Name: "systemd-cgroup", Usage: "let systemd make cgroups; cgroupsPath is then SLICE:PREFIX:NAME"},
			&cli.StringFlag{Name: "rootless", Hidden: true}, // podman gives it
			&cli.StringFlag{Name: "criu", Hidden: true},
			&cli.BoolFlag{Name: "version", Aliases: []string{"v"}, Usage: "print the versions of the program and of the specification"},
		},
		Before: t.begin,
		Action: t.noCommand,
		Subcommands: slices.Concat(
			t.lifeCommands(), t.execCommands(), t.listCommands(), t.groupCommands(), t.otherCommands(),
		),
	}
}

// errVersion ends the reading of the command line where it asks for the
// version: as with runc, no command beside that is done.
var errVersion = errors.New("the version is asked for")

// begin reads the flags that all commands have.
func (t *tool) begin(c *cli.Context) error {
	if c.Bool("version") {
		return errVersion
	}
	t.root = c.String("root")
	t.systemdCgroup = c.Bool("systemd-cgroup")
	return t.log.open(c.String("log"), c.String("log-format"), c.Bool("debug"), t.io.Err)
}

func (t *tool) printVersion() error {
	_, err := fmt.Fprintf(t.io.Out, "%s version %s\nspec: %s\ngo: %s\n", Name, applet.Version, specs.Version, runtime.Version())
	return err
}

func (t *tool) noCommand(c *cli.Context) error {
	if c.NArg() > 0 {
		return applet.Usagef("no command %q (see %s --help)", c.Args().First(), Name)
	}
	return applet.Usagef("a command is missing (see %s --help)", Name)
}

// arguments checks how many there are, and that we may do what is asked.
func arguments(c *cli.Context, least, most int) error {
	if c.NArg() < least {
		return applet.Usagef("%s: an argument is missing: %s", c.Command.Name, c.Command.ArgsUsage)
	}
	if most >= 0 && c.NArg() > most {
		return applet.Usagef("%s: an argument too many: %q", c.Command.Name, c.Args().Get(most))
	}
	return applet.NeedRoot()
}

// verb is a command that is about one container.
func (t *tool) verb(name, usage string, flags []cli.Flag, action func(*cli.Context, *box) error) *cli.Command {
	return &cli.Command{
		Name: name, Usage: usage, ArgsUsage: "ID", Flags: flags,
		Action: func(c *cli.Context) error {
			if err := arguments(c, 1, 1); err != nil {
				return err
			}
			b, err := t.open(c.Args().First())
			if err != nil {
				return err
			}
			return action(c, b)
		},
	}
}
