package container

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"shocker.sh/lib/stage"
	"shocker.sh/tools/shocker-spec/spec"
)

// print returns the pipeline that does what the command line asks for, each
// flag at the stage that owns it, ready to paste into a POSIX shell. Where
// the program may read the caller's stdin, that is kept as descriptor 3.
func (p *Pipeline) print(c *cli.Context, host stage.Host) (string, error) {
	args, err := render(c, spec.Flags)
	if err != nil {
		return "", err
	}
	words := append(args, c.Args().Slice()...)
	var commands []string
	add := func(name string, words ...string) error {
		program, err := host.Resolve(name)
		if err != nil {
			return err
		}
		if program == "" {
			program = name
		}
		for i, w := range words {
			words[i] = quote(w)
		}
		commands = append(commands, strings.Join(append([]string{quote(program)}, words...), " "))
		return nil
	}
	if err := add(spec.Name, words...); err != nil {
		return "", err
	}
	for _, s := range p.Stages {
		args, err := render(c, s.Flags)
		if err != nil {
			return "", err
		}
		if err := add(s.Name, append([]string{stage.Up}, args...)...); err != nil {
			return "", err
		}
	}
	if args, err = render(c, p.Last.Flags); err != nil {
		return "", err
	}
	stdin := c.Bool("interactive") || c.Bool("tty")
	last := []string{"--record", "-"}
	if stdin {
		last = append(last, "--stdin", "3")
	}
	if err := add(p.Last.Name, append(last, args...)...); err != nil {
		return "", err
	}
	line := strings.Join(commands, " | ")
	if stdin {
		line = "{ " + line + "; } 3<&0"
	}
	return line, nil
}

// render writes those of the flags that are set as words of a command line.
func render(c *cli.Context, flags []cli.Flag) ([]string, error) {
	var words []string
	for _, f := range flags {
		name := f.Names()[0]
		if !c.IsSet(name) {
			continue
		}
		switch f.(type) {
		case *cli.BoolFlag:
			if c.Bool(name) {
				words = append(words, "--"+name)
			} else {
				words = append(words, "--"+name+"=false")
			}
		case *cli.StringSliceFlag:
			for _, v := range c.StringSlice(name) {
				words = append(words, "--"+name, v)
			}
		case *cli.StringFlag, *cli.IntFlag, *cli.Int64Flag, *cli.Float64Flag, *cli.DurationFlag:
			words = append(words, "--"+name, fmt.Sprint(c.Value(name)))
		default:
			return nil, fmt.Errorf("flag --%s is of a kind that cannot be printed", name)
		}
	}
	return words, nil
}

// categorized puts the flags under the name of their stage in the help.
func categorized(name string, flags []cli.Flag) []cli.Flag {
	for _, f := range flags {
		switch f := f.(type) {
		case *cli.BoolFlag:
			f.Category = name
		case *cli.StringFlag:
			f.Category = name
		case *cli.StringSliceFlag:
			f.Category = name
		case *cli.IntFlag:
			f.Category = name
		case *cli.Int64Flag:
			f.Category = name
		case *cli.Float64Flag:
			f.Category = name
		case *cli.DurationFlag:
			f.Category = name
		}
	}
	return flags
}

// quote quotes a word for a POSIX shell where it needs to be. Control
// characters stay as they are: the line has to mean what was asked.
func quote(word string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=,@%+"
	if word != "" && strings.Trim(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
