package applet

import (
	"errors"
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
