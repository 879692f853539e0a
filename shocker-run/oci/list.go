package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"

	"shocker.sh/lib/applet"
)

var formatFlag = &cli.StringFlag{Name: "format", Aliases: []string{"f"}, Value: "table", Usage: "`FORM`: table or json"}

func (t *tool) listCommands() []*cli.Command {
	return []*cli.Command{
		t.verb("state", "print the state of a container as JSON", nil, func(_ *cli.Context, b *box) error {
			s, err := b.state()
			if err != nil {
				return err
			}
			return t.printJSON(s)
		}),
		{
			Name: "list", Usage: "list the containers", Flags: []cli.Flag{
				formatFlag,
				&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print only ids"},
			},
			Action: func(c *cli.Context) error {
				if err := arguments(c, 0, 0); err != nil {
					return err
				}
				if t.root != "" && c.IsSet("root") { // a root that is mistyped is not empty
					if _, err := os.Stat(t.root); err != nil {
						return fmt.Errorf("list containers: %w", err)
					}
				}
				return t.list(c.String("format"), c.Bool("quiet"))
			},
		},
		{
			Name: "ps", Usage: "list the processes of a container", ArgsUsage: "ID [OPTION OF ps(1)...]",
			Flags: []cli.Flag{formatFlag},
			Action: func(c *cli.Context) error {
				if err := arguments(c, 1, -1); err != nil {
					return err
				}
				b, err := t.open(c.Args().First())
				if err != nil {
					return err
				}
				return b.ps(c, c.String("format"), c.Args().Tail())
			},
		},
	}
}

// state is what `state` and `list` print: the specification's, and what
// engines know from runc.
type state struct {
	Version     string               `json:"ociVersion"`
	ID          string               `json:"id"`
	Pid         int                  `json:"pid"`
	Status      specs.ContainerState `json:"status"`
	Bundle      string               `json:"bundle"`
	Rootfs      string               `json:"rootfs"`
	Created     time.Time            `json:"created"`
	Annotations map[string]string    `json:"annotations,omitempty"`
	Owner       string               `json:"owner"`
}

func (b *box) state() (*state, error) {
	status, pidfd, err := b.status()
	if err != nil {
		return nil, err
	}
	spec, err := b.spec()
	if err != nil {
		return nil, err
	}
	s := &state{
		Version: specs.Version, ID: b.ID, Status: status, Bundle: b.Bundle, Created: b.Created,
		Rootfs: b.options().RootPath(spec), Annotations: spec.Annotations,
	}
	if pidfd != nil {
		s.Pid = b.Process.Pid
		return s, pidfd.Close()
	}
	return s, nil
}

func (t *tool) printJSON(v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err == nil {
		_, err = t.io.Out.Write(append(data, '\n'))
	}
	return err
}

func (t *tool) list(format string, quiet bool) error {
	if format != "table" && format != "json" {
		return applet.Usagef("--format %q: want table or json", format)
	}
	there, err := t.findRoot()
	if err != nil {
		return err
	}
	var entries []os.DirEntry
	if there {
		entries, err = os.ReadDir(t.root)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	all, owner := []*state{}, owner()
	for _, e := range entries {
		b, err := t.open(e.Name())
		if errors.Is(err, ErrNotExist) || errors.Is(err, ErrInvalidID) {
			continue // being created, gone meanwhile, or none of ours
		}
		var s *state
		if err == nil {
			s, err = b.state()
		}
		switch {
		case err == nil:
			s.Owner = owner
			all = append(all, s)
		case errors.Is(b.load(), ErrNotExist): // gone meanwhile
		default: // the others can be listed all the same
			msg := fmt.Sprintf("%s is left out: %v", b.ID, err)
			if t.log.w != nil {
				t.log.say(msg)
			}
			t.log.warn(msg)
		}
	}
	if format == "json" && !quiet {
		data, err := json.Marshal(all)
		if err == nil {
			_, err = t.io.Out.Write(append(data, '\n'))
		}
		return err
	}
	var text bytes.Buffer
	w := tabwriter.NewWriter(&text, 12, 1, 3, ' ', 0)
	if !quiet {
		fmt.Fprint(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER\n")
	}
	for _, s := range all {
		if quiet {
			fmt.Fprintln(w, s.ID)
			continue
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", s.ID, s.Pid, s.Status, applet.Escape(s.Bundle), s.Created.Format(time.RFC3339Nano), applet.Escape(s.Owner))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err = t.io.Out.Write(text.Bytes())
	return err
}

// owner is the name of the user whose containers ours are: those below an unsafe
// --root, which might be another's, are refused.
func owner() string {
	uid := strconv.Itoa(os.Geteuid())
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return "#" + uid // as runc has it
}

// ps lists the processes in the container's cgroup.
func (b *box) ps(c *cli.Context, format string, options []string) error {
	if format != "table" && format != "json" {
		return applet.Usagef("--format %q: want table or json", format)
	}
	g, err := b.group()
	if err != nil {
		return err
	}
	pids, err := g.Procs()
	if err != nil {
		return err
	}
	if format == "json" {
		if pids == nil {
			pids = []int{}
		}
		data, err := json.Marshal(pids)
		if err == nil {
			_, err = b.tool.io.Out.Write(append(data, '\n'))
		}
		return err
	}
	if len(options) == 0 {
		options = []string{"-ef"}
	}
	cmd := exec.CommandContext(c.Context, "ps", options...)
	cmd.Stderr = b.tool.io.Err
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("ps %s: %w", strings.Join(options, " "), err)
	}
	text, err := onlyPids(string(out), pids)
	if err != nil {
		return err
	}
	_, err = b.tool.io.Out.WriteString(text)
	return err
}

// onlyPids picks the head and the lines of some processes out of what ps(1)
// has printed.
func onlyPids(ps string, pids []int) (string, error) {
	head, rest, _ := strings.Cut(ps, "\n")
	column := slices.Index(strings.Fields(head), "PID")
	if column < 0 {
		return "", errors.New("ps prints no column PID: which lines are the container's is not known")
	}
	text := head + "\n"
	for line := range strings.Lines(rest) {
		fields := strings.Fields(line)
		if len(fields) <= column {
			continue
		}
		pid, err := strconv.Atoi(fields[column])
		if err != nil {
			return "", fmt.Errorf("ps prints %q as a pid", fields[column])
		}
		if slices.Contains(pids, pid) {
			text += line
		}
	}
	return text, nil
}
