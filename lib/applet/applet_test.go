package applet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/urfave/cli/v2"

	"shocker.sh/lib/stage"
)

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"plain text, ünï":    "plain text, ünï",
		"a\tb\nc\r":          `a\tb\nc\r`,
		"\x1b[31mred":        `\x1b[31mred`,
		"\u009b31m":          `\x9b31m`,
		"bad\xff":            `bad\xff`,
		"\x7f":               `\x7f`,
		"\uFFFD":             "\uFFFD",
		"a\u202egnp.exe":     `a\u202egnp.exe`,
		"\u200b\u00a0\u2028": `\u200b\u00a0\u2028`,
	} {
		if got := Escape(in); got != want {
			t.Errorf("Escape(%q) = %q; want %q", in, got, want)
		}
	}
}

func TestStatus(t *testing.T) {
	failure := errors.New("it\x1b failed")
	for _, test := range []struct {
		err  error
		code int
		talk string
	}{
		{nil, 0, ""},
		{failure, 1, "prog: it\\x1b failed\n"},
		{Usagef("no %s", "such flag"), 2, "prog: no such flag\n"},
		{&ExitError{Code: 7}, 7, ""},
		{errors.Join(errors.New("one\nforged"), fmt.Errorf("two: %w", errors.Join(failure))), 1, "prog: one\\nforged\nprog: two: it\\x1b failed\n"},
		{&ExitError{Code: 125, Err: failure}, 125, "prog: it\\x1b failed\n"},
		{fmt.Errorf("run: %w", &ExitError{Code: 126, Err: failure}), 126, "prog: run: it\\x1b failed\n"},
		{stage.ErrRecords, 1, ""},
		{fmt.Errorf("pull: %w", context.Canceled), 130, "prog: interrupted\n"},
	} {
		talk, err := os.Create(filepath.Join(t.TempDir(), "talk"))
		if err != nil {
			t.Fatal(err)
		}
		code := Status("prog", test.err, talk)
		got, err := os.ReadFile(talk.Name())
		if err != nil {
			t.Fatal(err)
		}
		if code != test.code || string(got) != test.talk {
			t.Errorf("Status(%v) = %d, %q; want %d, %q", test.err, code, got, test.code, test.talk)
		}
		talk.Close()
	}
}

func TestBoxPicks(t *testing.T) {
	var ran []string
	part := func(name string) Applet {
		return Applet{Name: name, Run: func(_ context.Context, _ IO, args []string) error {
			ran = append([]string{name}, args...)
			return nil
		}}
	}
	box := &Box{Name: "box", Parts: []Applet{part("shocker-net"), part("shocker-run")}, Verbs: []Applet{part("ps"), part("run")}}
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"shocker-net", "up"}, "[shocker-net shocker-net up]"},
		{[]string{"box", "net", "up"}, "[shocker-net shocker-net up]"},
		{[]string{"box", "shocker-net", "up"}, "[shocker-net shocker-net up]"},
		{[]string{"box", "ps", "-l"}, "[ps box ps -l]"},
		{[]string{"box", "run"}, "[run box run]"},
		{[]string{"box", "nothing"}, "[]"},
		{[]string{"other"}, "[]"},
	} {
		ran = nil
		err := box.run(t.Context(), IO{}, test.args)
		if got := fmt.Sprint(ran); got != test.want {
			t.Errorf("box of %q ran %s, %v; want %s", test.args, got, err, test.want)
		}
	}
}

func TestUsageErrorsExitWith2(t *testing.T) {
	cmd := &cli.Command{Name: "x", Flags: []cli.Flag{&cli.IntFlag{Name: "n"}}, Subcommands: []*cli.Command{{Name: "sub"}}}
	for _, args := range [][]string{{"x"}, {"x", "--nope"}, {"x", "-n", "abc"}, {"x", "nope"}, {"x", "sub", "--nope"}} {
		err := RunCommand(t.Context(), cmd, IO{os.Stdin, os.Stdout, os.Stderr}, args)
		var exit *ExitError
		if !errors.As(err, &exit) || exit.Code != Misused {
			t.Errorf("%q: %v; want a usage error", args, err)
		}
	}
}
