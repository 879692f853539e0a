package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/applet"
	"shocker.sh/lib/record"
	"shocker.sh/lib/stage"
)

// Flags are those of the stage that also `shocker run` has.
var Flags = []cli.Flag{
	&cli.BoolFlag{Name: "detach", Aliases: []string{"d"}, Usage: "print the container's id and leave it running"},
	&cli.BoolFlag{Name: "interactive", Aliases: []string{"i"}, Usage: "let the program read our stdin"},
	&cli.BoolFlag{Name: "rm", Usage: "remove the container when its program has ended"},
}

// Applet is shocker-run, which takes records.
var Applet = applet.Command(&cli.Command{
	Name:      Name,
	Usage:     "run the programs of records in containers, the last stage of a run",
	UsageText: Name + " --record FD|PATH|- [OPTIONS]",
	Description: "With one record the exit status is the program's own, 128 and the signal's\n" +
		"number if a signal ended it, 125 if it was not reached, 126 if it cannot be\n" +
		"executed, 127 if there is none. Several records run at once, each from when\n" +
		"its line has arrived, with /dev/null as stdin; their output is mixed by whole\n" +
		"lines, and the exit status is that of the first, in their order, that failed.\n" +
		"SIGINT or SIGTERM three times kill a program that does not hear them.",
	Flags: append([]cli.Flag{
		&cli.StringFlag{Name: "record", Usage: "take records from a descriptor, a file, or - for stdin"},
		&cli.IntFlag{Name: "stdin", Usage: "descriptor of the program's stdin, with -i", Value: 0},
		&cli.IntFlag{Name: "status-fd", Usage: "write how the run goes on to a descriptor, one JSON object a line"},
		&cli.BoolFlag{Name: "supervise", Usage: "be the process that -d leaves", Hidden: true},
	}, Flags...),
	Action: command,
})

func command(c *cli.Context) error {
	if c.NArg() > 0 {
		return applet.Usagef("it takes records and no argument %q", c.Args().First())
	}
	if !c.IsSet("record") {
		return applet.Usagef("--record FD|PATH|- is missing: where do the records come from?")
	}
	if err := applet.NeedRoot(); err != nil {
		return &applet.ExitError{Code: applet.NotStarted, Err: err}
	}
	in, err := openRecords(c.String("record"), applet.Streams(c).In)
	if err != nil {
		return &applet.ExitError{Code: applet.NotStarted, Err: err}
	}
	event, err := statusTo(c)
	if err != nil {
		return err
	}
	if c.Bool("supervise") {
		return supervise(c.Context, stage.FromEnv(), in, Options{
			Held: c.Bool("interactive"), Remove: c.Bool("rm"), Event: event,
		})
	}
	b := &batch{
		ctx: c.Context, host: stage.FromEnv(), io: applet.Streams(c), detach: c.Bool("detach"),
		interactive: c.Bool("interactive"), remove: c.Bool("rm"), event: event,
	}
	if fd := c.Int("stdin"); fd != 0 {
		b.io.In = inherited(fd, "stdin")
	}
	return b.run(record.NewReader(in))
}

func openRecords(from string, stdin *os.File) (*os.File, error) {
	if from == "-" {
		return stdin, nil
	}
	if fd, err := strconv.ParseUint(from, 10, 31); err == nil {
		return inherited(int(fd), "records"), nil
	}
	return os.Open(from)
}

// inherited makes a file of a descriptor that we were started with. Hooks do
// not get it.
func inherited(fd int, name string) *os.File {
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), name)
}

func statusTo(c *cli.Context) (func(Event), error) {
	if !c.IsSet("status-fd") {
		return nil, nil
	}
	f := inherited(c.Int("status-fd"), "status")
	if _, err := f.Stat(); err != nil {
		return nil, applet.Usagef("--status-fd %d: %w", c.Int("status-fd"), err)
	}
	var mu sync.Mutex
	return func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		// Whoever asked for it and went away does not want it any more.
		_ = json.NewEncoder(f).Encode(e)
	}, nil
}

// Last runs one record as the last stage of `shocker run`, with the flags of
// this stage. It calls started once the program runs or has failed to by its
// own fault; if it is not called, the caller removes the container.
func Last(c *cli.Context, host stage.Host, r *record.Record, started func() error) error {
	io := applet.Streams(c)
	o := Options{Remove: c.Bool("rm"), Started: started}
	if c.Bool("detach") {
		o.Held = c.Bool("interactive")
		return detached(c.Context, host, r, o, io.Out)
	}
	if c.Bool("interactive") {
		o.In = io.In
	}
	o.Out, o.Err = io.Out, io.Err
	return exit(Run(c.Context, host, r, o))
}

// exit makes an error of a program's exit status.
func exit(status int, err error) error {
	if status == 0 && err == nil {
		return nil
	}
	if status == 0 {
		status = applet.Failed
	}
	return &applet.ExitError{Code: status, Err: err}
}

// detached starts a container and prints its id.
func detached(ctx context.Context, host stage.Host, r *record.Record, o Options, out io.Writer) error {
	if status, err := Detach(ctx, host, r, o); err != nil {
		return &applet.ExitError{Code: status, Err: err}
	}
	_, err := fmt.Fprintln(out, r.ID())
	return err
}

// errTerminals refuses a terminal that several programs would share.
var errTerminals = errors.New("a terminal is for one record, and there are several")
