package oci

import (
	"reflect"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// arrange puts a command line in the order and form that the parser takes.
// Users of runc write `update ID --memory 1g` as well: the flags of a command
// come before its arguments. What follows "--" stays, and so does what is another
// program's: exec's, or ps(1)'s. And -e and --env are one flag.
func arrange(cmd *cli.Command, args []string) []string {
	all := slices.Clone(args[:1])
	list := args[1:]
	for len(list) > 0 && isFlag(list[0]) {
		all, list, _ = take(all, cmd.Flags, list)
	}
	if len(list) == 0 {
		return all
	}
	if list[0] == "help" {
		return append(append(all, list[1:]...), "--help")
	}
	at := slices.IndexFunc(cmd.Subcommands, func(c *cli.Command) bool { return c.HasName(list[0]) })
	if at < 0 {
		return append(all, list...)
	}
	sub := cmd.Subcommands[at]
	others := slices.Contains([]string{"exec", "ps"}, sub.Name)
	all, list = append(all, list[0]), list[1:]
	var rest []string
	for len(list) > 0 {
		switch {
		case list[0] == "--":
			rest, list = append(rest, list[1:]...), nil
		case isFlag(list[0]):
			var whole bool
			if all, list, whole = take(all, sub.Flags, list); !whole {
				return all // or the parser would take what follows for the value
			}
		case others:
			rest, list = list, nil
		default:
			rest, list = append(rest, list[0]), list[1:]
		}
	}
	return slices.Concat(all, []string{"--"}, rest)
}

func isFlag(arg string) bool { return len(arg) > 1 && arg[0] == '-' && arg != "--" }

// names are those of a flag. The library's own method compares each with a
// regular expression, at every start.
func names(f cli.Flag) []string {
	v := reflect.ValueOf(f).Elem()
	return append([]string{v.FieldByName("Name").String()}, v.FieldByName("Aliases").Interface().([]string)...)
}

// take moves a flag by its first name, and its value, from one list to another.
// It is not whole if it wants a value and there is none.
func take(to []string, flags []cli.Flag, from []string) (_, _ []string, whole bool) {
	arg, n := from[0], 1
	name, value, inside := strings.Cut(strings.TrimLeft(arg, "-"), "=")
	for _, f := range flags {
		all := names(f)
		if !slices.Contains(all, name) {
			continue
		}
		arg = "--" + all[0]
		if inside {
			arg += "=" + value
		}
		if doc, ok := f.(cli.DocGenerationFlag); ok && doc.TakesValue() && !inside {
			n = 2
		}
	}
	if n > len(from) {
		return append(to, arg), nil, false
	}
	return append(append(to, arg), from[1:n]...), from[n:], true
}
