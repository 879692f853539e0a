// Package applet is the frame around every program of Shocker: how it gets
// its input and output, how its command line is read, and with which status
// it exits. Only here is os.Exit called.
package applet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	_ "shocker.sh/lib/early"
	"shocker.sh/lib/stage"
)

// Version of the toolbox, set by the linker.
var Version = "development"

// Exit statuses of every program. The program in a container has its own, or
// 128 and the number of the signal that ended it.
const (
	Failed        = 1   // what was asked for could not be done
	Misused       = 2   // the command line is wrong
	NotStarted    = 125 // shocker failed before the program ran
	NotExecutable = 126 // the program cannot be executed
	NotFound      = 127 // there is no such program
	Interrupted   = 130 // 128 + SIGINT: ended by the user
)

// IO is what a program reads and writes. They are files because a container
// is handed them as its own.
type IO struct {
	In, Out, Err *os.File
}

// Applet is one program.
type Applet struct {
	Name     string // shocker-net
	Synopsis string // one line, no full stop
	// Run does the work. args[0] is the name that people see. The error is
	// not printed yet.
	Run func(ctx context.Context, io IO, args []string) error
}

// ExitError is an error that asks for a certain exit status. Without Err the
// reason has been told already, or there is nothing to tell.
type ExitError struct {
	Code int
	Err  error
}

func (e *ExitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit status %d", e.Code)
	}
	return e.Err.Error()
}

func (e *ExitError) Unwrap() error { return e.Err }

// Usagef is an error of the command line.
func Usagef(format string, a ...any) error {
	return &ExitError{Misused, fmt.Errorf(format, a...)}
}

// Main runs an applet as this process and exits.
func Main(a Applet) {
	name := a.Name
	if len(os.Args) > 0 && os.Args[0] != "" {
		name = filepath.Base(os.Args[0])
	}
	args := append([]string{name}, os.Args[min(1, len(os.Args)):]...)
	ctx, interrupt := context.WithCancel(context.Background())
	interrupting := []os.Signal{unix.SIGINT, unix.SIGTERM}
	if !signal.Ignored(unix.SIGHUP) { // nohup; a shell has SIGINT ignored in the background
		interrupting = append(interrupting, unix.SIGHUP)
	}
	go func() { // it takes a millisecond or two, and nothing has been done yet
		ch := make(chan os.Signal, 1)
		signal.Notify(ch, interrupting...)
		<-ch
		interrupt()
	}()
	cli.FlagStringer = flagHelp
	os.Exit(Status(name, a.Run(ctx, IO{os.Stdin, os.Stdout, os.Stderr}, args), os.Stderr))
}

// Status reports err on talk, if there is something to report, and returns
// the exit status it stands for.
func Status(name string, err error, talk *os.File) int {
	if err == nil {
		return 0
	}
	code := Failed
	var exit *ExitError
	if errors.As(err, &exit) {
		code = exit.Code
		if exit.Err == nil {
			return code
		}
	}
	if errors.Is(err, stage.ErrRecords) {
		return code // each has been reported
	}
	if errors.Is(err, context.Canceled) {
		fmt.Fprintf(talk, "%s: interrupted\n", name)
		return Interrupted
	}
	tell(name, err, talk)
	return code
}

// tell says what went wrong, each error on one line.
func tell(name string, err error, talk io.Writer) {
	for _, e := range flatten(err) {
		fmt.Fprintf(talk, "%s: %s\n", name, Escape(e.Error()))
	}
}

// flatten takes joined errors apart: each is a line of its own, and no text
// from outside can make another.
func flatten(err error) []error {
	if exit, ok := err.(*ExitError); ok {
		err = exit.Err
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	var lines []string
	for _, e := range joined.Unwrap() {
		all = append(all, flatten(e)...)
		lines = append(lines, e.Error())
	}
	if err.Error() != strings.Join(lines, "\n") {
		return []error{err} // of fmt.Errorf with several %w
	}
	return all
}

// Escape makes text from outside, an image's label or a registry's error, safe
// for a terminal and one line long: control characters come out as \n, \x1b,
// and what cannot be seen or turns the line around as \u202e.
func Escape(s string) string {
	clean := true
	for _, r := range s {
		clean = clean && strconv.IsPrint(r) && r != '\uFFFD'
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == '\uFFFD' && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0:
			fmt.Fprintf(&b, `\x%02x`, r)
		case !strconv.IsPrint(r):
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Command makes an applet of a cli command: its flags, arguments and
// subcommands are parsed, and help goes to stdout.
func Command(cmd *cli.Command) Applet {
	return Applet{
		Name:     cmd.Name,
		Synopsis: cmd.Usage,
		Run: func(ctx context.Context, io IO, args []string) error {
			return RunCommand(ctx, cmd, io, args)
		},
	}
}

// Streams returns the IO that RunCommand was given.
func Streams(c *cli.Context) IO { return c.App.Metadata["io"].(IO) }

// RunCommand parses args[1:] as cmd's command line and calls its action, or
// that of a subcommand.
func RunCommand(ctx context.Context, cmd *cli.Command, io IO, args []string) error {
	misuse := func(c *cli.Context, err error, _ bool) error {
		return Usagef("%w (see %s --help)", flagError(err, args), c.Command.HelpName)
	}
	app := &cli.App{
		// A comma belongs to the value of a flag: -e LIST=a,b.
		DisableSliceFlagSeparator: true,

		Name:                   args[0],
		HelpName:               args[0],
		Usage:                  cmd.Usage,
		UsageText:              cmd.UsageText,
		ArgsUsage:              cmd.ArgsUsage,
		Description:            cmd.Description,
		Version:                Version,
		Flags:                  cmd.Flags,
		Commands:               cmd.Subcommands,
		Action:                 cmd.Action,
		Before:                 cmd.Before,
		Metadata:               map[string]any{"io": io},
		Writer:                 io.Out,
		ErrWriter:              io.Err,
		CustomAppHelpTemplate:  helpTemplate,
		HideHelpCommand:        true,
		HideVersion:            true,
		UseShortOptionHandling: true,
		OnUsageError:           misuse,
		CommandNotFound:        helpOf,
		ExitErrHandler:         func(*cli.Context, error) {}, // Main exits
	}
	for _, sub := range app.Commands {
		if sub.OnUsageError == nil {
			sub.OnUsageError = misuse
		}
		sub.CustomHelpTemplate, sub.HideHelpCommand = helpTemplate, true
	}
	if app.Action == nil {
		app.Action = func(c *cli.Context) error {
			if c.NArg() > 0 {
				return Usagef("no command %q (see %s --help)", c.Args().First(), args[0])
			}
			return Usagef("a command is missing (see %s --help)", args[0])
		}
	}
	return app.RunContext(ctx, args)
}

// Talk returns what tells a person on stderr about something unusual that
// was done.
func Talk(io IO, name string) func(string) {
	return func(text string) { fmt.Fprintf(io.Err, "%s: %s\n", name, text) }
}
