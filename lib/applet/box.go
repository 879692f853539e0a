package applet

import (
	"context"
	"fmt"
	"strings"
)

// Box is a program that holds others and picks one by the name it is called
// by, as busybox does: `shocker-net` by that name, or `shocker net`, be that one
// word or two. Picking looks at nothing but the arguments.
type Box struct {
	Name     string   // of the program itself: shocker
	Parts    []Applet // shocker-net: also by argv[0]
	Verbs    []Applet // ps: only as `shocker ps`
	Synopsis string
	// Other is tried for a verb that is not here.
	Other func(ctx context.Context, io IO, args []string) (found bool, err error)
}

// Applet is the box as a program.
func (b *Box) Applet() Applet {
	return Applet{Name: b.Name, Synopsis: b.Synopsis, Run: b.run}
}

func (b *Box) run(ctx context.Context, io IO, args []string) error {
	for _, a := range b.Parts {
		if a.Name == strings.Replace(args[0], " ", "-", 1) {
			return a.Run(ctx, io, args)
		}
	}
	if len(args) < 2 {
		return Usagef("a command is missing; %s help lists them", b.Name)
	}
	verb := args[1]
	switch verb {
	case "help", "--help", "-h":
		if len(args) == 3 {
			return b.verb(ctx, io, args[2], []string{"--help"})
		}
		return b.help(io)
	case "version", "--version", "-v":
		_, err := fmt.Fprintf(io.Out, "%s %s\n", b.Name, Version)
		return err
	case "applets": // for scripts that make the symbolic links
		for _, a := range b.Parts {
			if _, err := fmt.Fprintln(io.Out, a.Name); err != nil {
				return err
			}
		}
		return nil
	}
	return b.verb(ctx, io, verb, args[2:])
}

func (b *Box) verb(ctx context.Context, io IO, verb string, args []string) error {
	for _, a := range b.Verbs {
		if a.Name == verb {
			return a.Run(ctx, io, append([]string{b.Name + " " + verb}, args...))
		}
	}
	part := "shocker-" + strings.TrimPrefix(verb, "shocker-")
	for _, a := range b.Parts {
		if a.Name == part {
			return a.Run(ctx, io, append([]string{a.Name}, args...))
		}
	}
	if b.Other != nil {
		if found, err := b.Other(ctx, io, append([]string{part}, args...)); found {
			return err
		}
	}
	return Usagef("no command %q; %s help lists them", verb, b.Name)
}

func (b *Box) help(io IO) error {
	var s strings.Builder
	fmt.Fprintf(&s, "%s - %s\n\nusage: %s COMMAND [ARG...]\n\n", b.Name, b.Synopsis, b.Name)
	for _, group := range []struct {
		title   string
		applets []Applet
	}{{"Commands", b.Verbs}, {"Parts, also to be called by their own names", b.Parts}} {
		fmt.Fprintf(&s, "%s:\n", group.title)
		for _, a := range group.applets {
			fmt.Fprintf(&s, "  %-15s %s\n", a.Name, a.Synopsis)
		}
		s.WriteByte('\n')
	}
	fmt.Fprintf(&s, "%s help COMMAND, or COMMAND --help, tells more about one.\n", b.Name)
	_, err := io.Out.WriteString(s.String())
	return err
}
