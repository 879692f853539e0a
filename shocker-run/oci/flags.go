package oci

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// flagsFirst puts the flags of a command before its arguments: users of runc
// write `update ID --memory 1g` as well. What follows "--" stays, and so does
// what is another program's: exec's, or ps(1)'s.
func flagsFirst(cmd *cli.Command, args []string) []string {
	at := 1 // the command
	for at < len(args) && isFlag(args[at]) {
		at += 1 + value(cmd.Flags, args[at])
	}
	if at >= len(args) {
		return args
	}
	var sub *cli.Command
	for _, c := range cmd.Subcommands {
		if c.HasName(args[at]) && !slices.Contains([]string{"exec", "ps"}, c.Name) {
			sub = c
		}
	}
	if sub == nil {
		return args
	}
	var flags, rest []string
	list := args[at+1:]
	for len(list) > 0 {
		n := 1
		switch {
		case list[0] == "--":
			n = len(list)
			rest = append(rest, list[1:]...)
		case isFlag(list[0]):
			n = min(1+value(sub.Flags, list[0]), len(list))
			flags = append(flags, list[:n]...)
		default:
			rest = append(rest, list[0])
		}
		list = list[n:]
	}
	return slices.Concat(args[:at+1], flags, []string{"--"}, rest)
}

func isFlag(arg string) bool { return len(arg) > 1 && arg[0] == '-' && arg != "--" }

// value is 1 if the argument after this flag is its value.
func value(flags []cli.Flag, arg string) int {
	name := strings.TrimLeft(arg, "-")
	if strings.Contains(name, "=") {
		return 0
	}
	for _, f := range flags {
		if doc, ok := f.(cli.DocGenerationFlag); ok && slices.Contains(f.Names(), name) && doc.TakesValue() {
			return 1
		}
	}
	return 0
}
