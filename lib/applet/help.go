package applet

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

// helpTemplate is the help of a program, and of a command of a program.
const helpTemplate = `{{.HelpName}} - {{.Usage}}

usage: {{if .UsageText}}{{.UsageText}}{{else}}{{.HelpName}}{{if .VisibleFlags}} [FLAG...]{{end}}{{if .VisibleCommands}} COMMAND{{end}}{{if trim .ArgsUsage}} {{.ArgsUsage}}{{end}}{{end}}
{{- if .Description}}

{{.Description}}{{end}}
{{- if .VisibleCommands}}

Commands:{{range .VisibleCommands}}
  {{join .Names ", "}}{{"\t"}}{{.Usage}}{{end}}{{end}}
{{- if .VisibleFlagCategories}}
{{range .VisibleFlagCategories}}
{{if .Name}}{{.Name}}:{{else}}Flags:{{end}}{{range .Flags}}
  {{.}}{{end}}
{{end}}{{else if .VisibleFlags}}

Flags:{{range .VisibleFlags}}
  {{.}}{{end}}
{{end}}`

// helpOf prints the help of a command whose line has arguments too, as `run
// --help IMAGE`. The library takes the first one for a topic, which it is not.
func helpOf(c *cli.Context, _ string) {
	if sub := c.App.Command(c.Command.Name); sub != nil {
		cli.HelpPrinter(c.App.Writer, helpTemplate, sub)
		return
	}
	_ = cli.ShowAppHelp(c) // its only error is that a standard stream is gone
}

// flagWidth is how many characters of what a flag does stand on a line.
const flagWidth = 54

// flagHelp is a flag in a help text: its names, the short one first, and what
// it does, with a default only where there is something to know.
func flagHelp(f cli.Flag) string {
	d, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return ""
	}
	usage, value := d.GetUsage(), ""
	if before, rest, ok := strings.Cut(usage, "`"); ok {
		if name, after, ok := strings.Cut(rest, "`"); ok {
			usage, value = before+name+after, " "+name
		}
	}
	short, long := "", ""
	for _, name := range d.Names() {
		if len(name) == 1 {
			short += "-" + name + ", "
		} else {
			long += "--" + name + ", "
		}
	}
	if text := d.GetDefaultText(); text != "" && text != "0" && d.TakesValue() {
		usage += " (default: " + strings.Trim(text, `"`) + ")"
	}
	return strings.TrimSuffix(short+long, ", ") + value + "\t" + wrap(usage, flagWidth)
}

// wrap breaks text into lines of the second column.
func wrap(text string, width int) string {
	var b strings.Builder
	n := 0
	for _, word := range strings.Fields(text) {
		switch {
		case n == 0:
		case n+1+len(word) > width:
			b.WriteString("\n  \t")
			n = 0
		default:
			b.WriteByte(' ')
			n++
		}
		b.WriteString(word)
		n += len(word)
	}
	return b.String()
}

// flagError names a flag as it was typed: the parser's own words have one
// dash for all.
func flagError(err error, args []string) error {
	for _, text := range []struct{ theirs, ours string }{
		{"flag provided but not defined: -", "no flag %s"},
		{"flag needs an argument: -", "flag %s needs an argument"},
	} {
		name, ok := strings.CutPrefix(err.Error(), text.theirs)
		if !ok {
			continue
		}
		typed := "-" + name
		for _, arg := range args {
			if arg, _, _ := strings.Cut(arg, "="); arg == "--"+name {
				typed = arg
			}
		}
		return fmt.Errorf(text.ours, typed)
	}
	return err
}
