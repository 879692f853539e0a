package applet

import (
	"os"

	"github.com/urfave/cli/v2"

	"shocker.sh/lib/stage"
)

// Stage is a part in its pipeline role.
type Stage struct {
	Name        string // shocker-net
	Synopsis    string // one line, no full stop
	Description string
	// Flags of `up`. `shocker run` takes the union of its stages' flags.
	Flags []cli.Flag
	// Open makes the handler from the flags. It has no effect on the kernel.
	Open func(host stage.Host, c *cli.Context) (stage.Handler, error)
	// Commands are what the part does alone.
	Commands []*cli.Command
}

// Applet is the stage as a program: `NAME up|down|check` reads records from
// stdin, and its commands.
func (s Stage) Applet() Applet {
	verb := func(verb, usage string, flags []cli.Flag) *cli.Command {
		return &cli.Command{
			Name:      verb,
			Usage:     usage,
			ArgsUsage: " ",
			Flags:     flags,
			Action: func(c *cli.Context) error {
				if c.NArg() > 0 {
					return Usagef("%s takes records on its input, no argument %q", verb, c.Args().First())
				}
				if err := NeedRoot(); err != nil {
					return err
				}
				host := stage.FromEnv()
				h, err := s.Open(host, c)
				if err != nil {
					return err
				}
				io := Streams(c)
				talk := func(err error) { tell(s.Name, err, io.Err) }
				return stage.Run(c.Context, host, s.Name, verb, h, io.In, io.Out, talk)
			},
		}
	}
	return Command(&cli.Command{
		Name:        s.Name,
		Usage:       s.Synopsis,
		Description: s.Description,
		Subcommands: append([]*cli.Command{
			verb(stage.Up, "take effect for the records on stdin and pass them on", s.Flags),
			verb(stage.Down, "undo it for the records on stdin", nil),
			verb(stage.Check, "verify it for the records on stdin", nil),
		}, s.Commands...),
	})
}

// NeedRoot refuses to go on as another user than root.
func NeedRoot() error {
	if uid := os.Geteuid(); uid != 0 {
		return notRoot(uid)
	}
	return nil
}
