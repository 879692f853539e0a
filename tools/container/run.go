package container

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"shocker.sh/lib/applet"
	"shocker.sh/lib/container"
	"shocker.sh/lib/record"
	"shocker.sh/lib/stage"
	"shocker.sh/lib/store"
	"shocker.sh/lib/undo"
	"shocker.sh/tools/internal/porcelain"
	"shocker.sh/tools/shocker-spec/spec"
)

// Last is the last stage of a run.
type Last struct {
	Name  string
	Flags []cli.Flag // without those by which it takes records
	// Command is the stage as a program: `shocker-run --record -`.
	Command applet.Applet
	// Run runs the record's program as Flags say and returns its exit status
	// as an applet.ExitError. It calls started once the program runs, or has
	// failed to.
	Run func(c *cli.Context, host stage.Host, r *record.Record, started func() error) error
	// Start is Run for a container that is started again: detached, or
	// attached and with our stdin if --interactive is set.
	Start func(c *cli.Context, host stage.Host, r *record.Record, attach bool, started func() error) error
}

// Pipeline is the list of stages of a run. The command line, what is printed
// with -n and what is done come from it.
type Pipeline struct {
	Stages []applet.Stage // those between the first and the last
	Last   Last
}

// Applet is the last stage's program: with --record it is the stage, without
// it composes the whole.
func (p *Pipeline) Applet() applet.Applet {
	composed := applet.Command(p.Run())
	return applet.Applet{
		Name:     p.Last.Name,
		Synopsis: composed.Synopsis,
		Run: func(ctx context.Context, io applet.IO, args []string) error {
			if takesRecords(args[1:]) {
				return p.Last.Command.Run(ctx, io, args)
			}
			return composed.Run(ctx, io, args)
		},
	}
}

// takesRecords looks for --record among the flags: behind the first other
// word they are the container's program's.
func takesRecords(args []string) bool {
	for i, a := range args {
		name, _, _ := strings.Cut(strings.TrimLeft(a, "-"), "=")
		switch {
		case a == "--" || !strings.HasPrefix(a, "-"):
			// A word by itself may be the value of the flag before it.
			if i == 0 || !strings.HasPrefix(args[i-1], "-") {
				return false
			}
		case name == "record":
			return true
		}
	}
	return false
}

// Run returns the command that runs a program in a new container.
func (p *Pipeline) Run() *cli.Command {
	return &cli.Command{
		Name:      "run",
		Usage:     "run a program in a new container",
		ArgsUsage: "IMAGE [PROGRAM [ARG...]]",
		Description: "One argument that holds white space or a shell operator is given to the\n" +
			"container's /bin/sh -c; several are a program and its arguments.\n" +
			"Without one, the image's own program runs. For example:\n" +
			"  shocker run -it --rm debian:12 bash\n" +
			"  shocker run -d --name web -e A=b --memory 256 debian:12 sleep 1000\n" +
			"  shocker run debian:12 'ls /etc | wc -l'\n" +
			"Without -t, Ctrl-C goes to the program and the third one kills it. The host reaches\n" +
			"every port of a container at its address, which shocker ps -l shows.\n" +
			"With --record FD|PATH|- it makes no container, but runs those that other stages have\n" +
			"made, as the last one: see shocker run --record - --help.\n" +
			"The flags are those of the stages, under whose names they stand.",
		Flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "print the pipeline that does the same"},
		}, p.flags()...),
		Action: func(c *cli.Context) error {
			o, err := spec.FromContext(c)
			if err != nil {
				return err
			}
			if c.Bool("dry-run") {
				line, err := p.print(c, stage.FromEnv())
				if err != nil {
					return err
				}
				return porcelain.Printf(c, "%s\n", line)
			}
			host, st, err := porcelain.Open(c)
			if err == nil {
				err = p.compose(c, host, st, o)
			}
			return notStarted(err)
		},
	}
}

// notStarted gives an error without a status of its own that of a program
// that was never reached.
func notStarted(err error) error {
	var exit *applet.ExitError
	if err == nil || errors.As(err, &exit) {
		return err
	}
	return &applet.ExitError{Code: applet.NotStarted, Err: err}
}

// flags is the union of the stages' flags, each under the name of its stage.
func (p *Pipeline) flags() []cli.Flag {
	all := categorized(spec.Name, spec.Flags)
	for _, s := range p.Stages {
		all = append(all, categorized(s.Name, s.Flags)...)
	}
	return append(all, categorized(p.Last.Name, p.Last.Flags)...)
}

// compose is the pipeline within this process, as far as its stages are ours.
func (p *Pipeline) compose(c *cli.Context, host stage.Host, st *store.Store, o *spec.Options) (retErr error) {
	r, busy, err := p.first(c, host, st, o)
	if err != nil {
		return err
	}
	// Beside the stages, which mostly wait for the kernel.
	leftovers := make(chan int, 1)
	go func() { leftovers <- container.Leftovers(host, st) }()
	log := undo.Open(host.RunDir(r.ID()))
	reached := false // the program
	started := func() error {
		reached = true
		return busy.Done()
	}
	defer func() {
		if !reached {
			retErr = errors.Join(retErr, busy.Done(), container.Remove(host, st, r.ID()))
		}
	}()
	return p.through(c, host, log, r, func(c *cli.Context, host stage.Host, r *record.Record) error {
		program, err := host.Resolve(p.Last.Name)
		if err != nil {
			return err
		}
		if n := <-leftovers; n > 0 {
			s := "s"
			if n == 1 {
				s = ""
			}
			applet.Talk(applet.Streams(c), c.App.Name)(fmt.Sprintf("%d leftover%s, see shocker gc", n, s))
		}
		if program != "" {
			return p.foreignLast(c, host, st, program, log, r, started)
		}
		return p.Last.Run(c, host, r, started)
	})
}

// first is the first stage: ours, or the foreign one in its place.
func (p *Pipeline) first(c *cli.Context, host stage.Host, st *store.Store, o *spec.Options) (*record.Record, *undo.Busy, error) {
	program, err := host.Resolve(spec.Name)
	if err != nil {
		return nil, nil, err
	}
	if program == "" {
		return spec.Make(host, st, o, p.Last.Name)
	}
	args, err := render(c, spec.Flags)
	if err != nil {
		return nil, nil, err
	}
	out, err := foreign(c.Context, applet.Streams(c), nil, program, append(args, c.Args().Slice()...)...)
	if err != nil {
		return nil, nil, err
	}
	r, err := record.Parse(out)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", program, err)
	}
	dir, err := host.MakeRun(r.ID())
	if err != nil {
		return nil, nil, err
	}
	busy, err := undo.Open(dir).Begin(p.Last.Name)
	return r, busy, err
}

// stage lets one stage take effect on the record.
func (p *Pipeline) stage(ctx context.Context, c *cli.Context, host stage.Host, s applet.Stage, log *undo.Log, r **record.Record) error {
	program, err := host.Resolve(s.Name)
	if err != nil {
		return err
	}
	if program == "" {
		h, err := s.Open(host, c)
		if err != nil {
			return err
		}
		return h.Up(ctx, *r)
	}
	args, err := render(c, s.Flags)
	if err != nil {
		return err
	}
	entry := &undo.Entry{
		Stage: s.Name, Class: undo.Rm, Op: undo.OpDown,
		Args: []string{program, stage.Down}, Record: line(*r),
	}
	if s.Name == "shocker-net" {
		entry.Class = undo.Exit
	}
	if err := log.Push(entry); err != nil {
		return err
	}
	out, err := foreign(ctx, applet.Streams(c), (*r).Line(), program, append([]string{stage.Up}, args...)...)
	if err != nil {
		return err
	}
	next, err := record.Parse(out)
	if err != nil {
		return fmt.Errorf("%s: %w", program, err)
	}
	if next.ID() != (*r).ID() {
		return fmt.Errorf("%s: gave back the record of %s for that of %s", program, next.ID(), (*r).ID())
	}
	*r = next
	entry.Record = line(next)
	return log.Update(entry)
}
