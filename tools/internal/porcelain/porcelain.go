// Package porcelain is what the verbs for people share: how they begin, how
// they treat several arguments, and how they list.
package porcelain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/applet"
	"shocker.sh/lib/stage"
	"shocker.sh/lib/store"
)

// Architecture of this machine, as image configs name it (GOARCH).
const Architecture = runtime.GOARCH

// Open begins a verb: only root may, and the store is made if it is not
// there.
func Open(c *cli.Context) (stage.Host, *store.Store, error) {
	host := stage.FromEnv()
	if err := applet.NeedRoot(); err != nil {
		return host, nil, err
	}
	st, err := store.Open(host.Store, applet.Talk(applet.Streams(c), c.App.Name))
	return host, st, err
}

// Printf writes to stdout in one write.
func Printf(c *cli.Context, format string, a ...any) error {
	_, err := fmt.Fprintf(applet.Streams(c).Out, format, a...)
	return err
}

// NoArgs refuses arguments where there is nothing that they could name.
func NoArgs(c *cli.Context) error {
	if c.NArg() > 0 {
		return applet.Usagef("%q: it takes no arguments (see %s --help)", c.Args().First(), c.App.HelpName)
	}
	return nil
}

// Each does f for every argument. One that fails is reported and stops no
// other.
func Each(c *cli.Context, f func(arg string) error) error {
	if c.NArg() == 0 {
		return applet.Usagef("say which (see %s --help)", c.App.HelpName)
	}
	var errs []error
	for _, arg := range c.Args().Slice() {
		if err := f(arg); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// List is a listing: a header and rows. There is one tab between the columns;
// on a terminal spaces line them up.
type List struct {
	Header []string
	Rows   []Row
}

// Row is one line of a listing in its three forms.
type Row struct {
	ID      string
	Columns []string
	JSON    any
}

// Print writes the listing as the flags -q and --json ask.
func (l *List) Print(c *cli.Context) error {
	var b bytes.Buffer
	switch {
	case c.Bool("q"):
		for _, r := range l.Rows {
			b.WriteString(r.ID + "\n")
		}
	case c.Bool("json"):
		for _, r := range l.Rows {
			text, err := JSON(r.JSON, "")
			if err != nil {
				return err
			}
			b.Write(text)
		}
	case terminal(applet.Streams(c).Out):
		w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		if err := errors.Join(l.write(w), w.Flush()); err != nil {
			return err
		}
	default:
		if err := l.write(&b); err != nil {
			return err
		}
	}
	_, err := applet.Streams(c).Out.Write(b.Bytes())
	return err
}

// write writes the header and the rows, one tab between the columns.
func (l *List) write(w io.Writer) error {
	var b strings.Builder
	b.WriteString(strings.Join(l.Header, "\t") + "\n")
	for _, r := range l.Rows {
		for i, column := range r.Columns {
			if i > 0 {
				b.WriteByte('\t')
			}
			b.WriteString(applet.Escape(column))
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func terminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// JSON encodes v with a newline at its end. All control characters are escaped,
// also those that JSON lets stand and terminals obey: DEL and U+0080 to U+009F.
func JSON(v any, indent string) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	var safe []byte
	for _, r := range b.String() { // they stand in strings only
		if r >= 0x7f && r < 0xa0 {
			safe = fmt.Appendf(safe, `\u%04x`, r)
		} else {
			safe = utf8.AppendRune(safe, r)
		}
	}
	return safe, nil
}
