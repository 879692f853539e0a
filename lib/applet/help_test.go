package applet

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

func TestFlagHelp(t *testing.T) {
	for want, flag := range map[string]cli.Flag{
		"-d, --detach\tleave it running": &cli.BoolFlag{Name: "detach", Aliases: []string{"d"}, Usage: "leave it running"},
		"-q\tids only":                   &cli.BoolFlag{Name: "q", Usage: "ids only"},
		"-e, --env NAME=VALUE\tset NAME=VALUE": &cli.StringSliceFlag{
			Name: "env", Aliases: []string{"e"}, Usage: "set `NAME=VALUE`",
		},
		"-s, --signal SIGNAL\tSIGNAL by name (default: KILL)": &cli.StringFlag{
			Name: "signal", Aliases: []string{"s"}, Usage: "`SIGNAL` by name", Value: "KILL",
		},
		"--fds N\tpass on N": &cli.IntFlag{Name: "fds", Usage: "pass on `N`"},
		"--tail N\tonly the last N of the lines that its program has\n  \twritten (default: all)": &cli.IntFlag{
			Name: "tail", Usage: "only the last `N` of the lines that its program has written", Value: -1, DefaultText: "all",
		},
	} {
		if got := flagHelp(flag); got != want {
			t.Errorf("flagHelp = %q; want %q", got, want)
		}
	}
}

// TestHelpBesideArguments: who asks for help gets it, whatever else is there.
func TestHelpBesideArguments(t *testing.T) {
	for line, want := range map[string]string{
		"tool --help": "tool - does", "tool --help image": "tool - does",
		"tool up --help": "tool up - goes up", "tool up --help image": "tool up - goes up", "tool --help up": "tool up - goes up",
	} {
		cmd := &cli.Command{
			Name: "tool", Usage: "does", Action: func(*cli.Context) error { return errors.New("was run") },
			Subcommands: []*cli.Command{{Name: "up", Usage: "goes up", Action: func(*cli.Context) error { return errors.New("went up") }}},
		}
		path := filepath.Join(t.TempDir(), "out")
		out, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		err = RunCommand(t.Context(), cmd, IO{os.Stdin, out, os.Stderr}, strings.Fields(line))
		text, _ := os.ReadFile(path)
		if err != nil || !strings.HasPrefix(string(text), want+"\n") {
			t.Errorf("%s: %v, %q; want %q", line, err, text, want)
		}
	}
}

func TestFlagError(t *testing.T) {
	for _, test := range []struct{ theirs, typed, want string }{
		{"flag provided but not defined: -p", "-p", "no flag -p"},
		{"flag provided but not defined: -restart", "--restart=always", "no flag --restart"},
		{"flag provided but not defined: -itz", "-itz", "no flag -itz"},
		{"flag needs an argument: -memory", "--memory", "flag --memory needs an argument"},
		{"something else", "-x", "something else"},
	} {
		if got := flagError(errors.New(test.theirs), []string{"run", test.typed}); got.Error() != test.want {
			t.Errorf("flagError(%q) with %s = %q; want %q", test.theirs, test.typed, got, test.want)
		}
	}
}
