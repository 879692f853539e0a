package spec

import (
	"context"
	"errors"
	"strings"

	"github.com/urfave/cli/v2"

	"shocker.sh/lib/applet"
	"shocker.sh/lib/container"
	"shocker.sh/lib/record"
	"shocker.sh/lib/stage"
	"shocker.sh/lib/store"
	"shocker.sh/lib/undo"
)

// Flags of the stage. `shocker run` takes them from here.
var Flags = []cli.Flag{
	&cli.StringSliceFlag{Name: "env", Aliases: []string{"e"}, KeepSpace: true, Usage: "set `NAME=VALUE` in the environment, or pass on your own NAME"},
	&cli.StringFlag{Name: "workdir", Aliases: []string{"w"}, Usage: "start in directory `DIR`"},
	&cli.StringFlag{Name: "user", Aliases: []string{"u"}, Usage: "run as `USER[:GROUP]` of the image, names or numbers"},
	&cli.StringFlag{Name: "entrypoint", Usage: "run `PROGRAM` in the place of the image's entry point (\"\": none)"},
	&cli.StringFlag{Name: "name", Usage: "call the container `NAME`"},
	&cli.StringFlag{Name: "hostname", Usage: "host `NAME` inside (default: the container's id)"},
	&cli.BoolFlag{Name: "tty", Aliases: []string{"t"}, Usage: "give the program a terminal"},
	&cli.StringSliceFlag{Name: "security-opt", KeepSpace: true, Usage: "seccomp=default, unconfined or FILE; no-new-privileges=true or false: `OPTION`"},
	&cli.StringFlag{Name: "userns", Usage: "user namespace `MODE`: host is none, so root inside is root outside", DefaultText: "one of its own"},
}

// FromContext reads the options from the command line "[FLAGS] IMAGE [ARG...]".
func FromContext(c *cli.Context) (*Options, error) {
	if c.NArg() == 0 {
		return nil, applet.Usagef("an image is missing (see %s --help)", c.App.HelpName)
	}
	o := &Options{
		Image:    c.Args().First(),
		Args:     c.Args().Tail(),
		Env:      c.StringSlice("env"),
		Workdir:  c.String("workdir"),
		User:     c.String("user"),
		Name:     c.String("name"),
		Hostname: c.String("hostname"),
		TTY:      c.Bool("tty"),
	}
	if err := o.securityOptions(c.StringSlice("security-opt")); err != nil {
		return nil, err
	}
	switch c.String("userns") {
	case "":
	case "host":
		o.HostUsers = true
	default:
		return nil, applet.Usagef("--userns %q: only \"host\" is known", c.String("userns"))
	}
	if !validHostname(o.Hostname) {
		return nil, applet.Usagef("--hostname %q: want up to 64 letters, digits, hyphens, dots and underscores", o.Hostname)
	}
	if c.IsSet("entrypoint") {
		e := c.String("entrypoint")
		o.Entrypoint = &e
	}
	return o, nil
}

// validHostname: it becomes a word of /etc/hosts. 64 bytes are what
// sethostname(2) takes; no name means the container's id.
func validHostname(name string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._"
	return len(name) <= 64 && strings.Trim(name, letters) == "" && !strings.HasPrefix(name, "-") && !strings.HasPrefix(name, ".")
}

const synopsis = "make the record of a container, the first stage of a run"

// Applet is shocker-spec as a program.
var Applet = applet.Applet{
	Name:     Name,
	Synopsis: synopsis,
	Run:      run,
}

func run(ctx context.Context, io applet.IO, args []string) error {
	if len(args) == 3 && args[1] == "poststop" {
		return container.Poststop(args[2])
	}
	return applet.RunCommand(ctx, command, io, args)
}

var command = &cli.Command{
	Name:      Name,
	Usage:     synopsis,
	ArgsUsage: "IMAGE [ARG...] | --adopt",
	Description: "Takes an id and writes the record of a container to stdout: an OCI runtime\n" +
		"config on one line. With --adopt it reads configs of others on stdin\n" +
		"(runc spec, an editor), and gives each what the further stages need.",
	Flags: append([]cli.Flag{
		&cli.BoolFlag{Name: "adopt", Usage: "make records of the configs on stdin"},
	}, Flags...),
	Action: func(c *cli.Context) error {
		if err := applet.NeedRoot(); err != nil {
			return err
		}
		io := applet.Streams(c)
		host := stage.FromEnv()
		st, err := store.Open(host.Store, applet.Talk(io, c.App.Name))
		if err != nil {
			return err
		}
		if c.Bool("adopt") {
			if c.NArg() > 0 {
				return applet.Usagef("--adopt reads configs on its input, no argument %q", c.Args().First())
			}
			return adoptAll(c.Context, host, st, io)
		}
		o, err := FromContext(c)
		if err != nil {
			return err
		}
		r, busy, err := Make(host, st, o, Name)
		if err != nil {
			return err
		}
		return passOn(host, io, r, busy)
	},
}

// passOn writes the record. If nobody takes it, the container goes again.
func passOn(host stage.Host, io applet.IO, r *record.Record, busy *undo.Busy) error {
	defer stage.CatchPipe()()
	_, err := io.Out.Write(r.Line())
	if err != nil {
		log := undo.Open(host.RunDir(r.ID()))
		return errors.Join(err, log.Replay(""), busy.Done(), host.RemoveRun(r.ID()))
	}
	return busy.Done()
}
