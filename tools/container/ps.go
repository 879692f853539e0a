// Package container is the porcelain of containers: run, ps, logs, exec and
// the rest.
package container

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"

	"shocker.sh/lib/container"
	"shocker.sh/lib/record"
	"shocker.sh/tools/internal/porcelain"
)

// Ps lists the containers, whatever their state.
var Ps = &cli.Command{
	Name:  "ps",
	Usage: "list the containers, running or not, the oldest first",
	Flags: []cli.Flag{
		&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "all of them, which is what it lists anyway"},
		&cli.BoolFlag{Name: "l", Usage: "long: status, image, time of creation, address and name too"},
		&cli.BoolFlag{Name: "q", Usage: "ids only"},
		&cli.BoolFlag{Name: "json", Usage: "one JSON object a line"},
	},
	Action: func(c *cli.Context) error {
		if err := porcelain.NoArgs(c); err != nil {
			return err
		}
		host, st, err := porcelain.Open(c)
		if err != nil {
			return err
		}
		containers, damaged := container.List(host, st)
		slices.SortFunc(containers, func(a, b *container.Container) int {
			return cmp.Or(a.State.Created.Compare(b.State.Created), strings.Compare(a.ID, b.ID))
		})
		list := porcelain.List{Header: []string{"CONTAINER_ID", "COMMAND"}}
		if c.Bool("l") {
			list.Header = append(list.Header, "STATUS", "IMAGE", "CREATED", "ADDRESS", "NAME")
		}
		for _, ps := range containers {
			s, err := summarize(ps)
			if err != nil {
				return err
			}
			row := porcelain.Row{ID: s.ID, Columns: []string{s.ID, s.Command}, JSON: s}
			if c.Bool("l") {
				row.Columns = append(row.Columns, s.status(), s.Image, s.Created.Format(time.RFC3339), s.Address, s.Name)
			}
			list.Rows = append(list.Rows, row)
		}
		return errors.Join(list.Print(c), damaged)
	},
}

// summary is a container as the listings show it.
type summary struct {
	ID         string           `json:"id"`
	Command    string           `json:"command"`
	Args       []string         `json:"args"`
	Status     container.Status `json:"status"`
	ExitStatus *int             `json:"exitStatus,omitempty"`
	OOMKilled  bool             `json:"oomKilled,omitempty"`
	Image      string           `json:"image,omitempty"`
	Source     string           `json:"source,omitempty"`
	Created    time.Time        `json:"created"`
	Started    time.Time        `json:"started,omitzero"`
	Finished   time.Time        `json:"finished,omitzero"`
	Address    string           `json:"address,omitempty"`
	Name       string           `json:"name,omitempty"`
}

func summarize(ps *container.Container) (*summary, error) {
	var process specs.Process
	if _, err := ps.Record.Get(&process, "process"); err != nil {
		return nil, err
	}
	s := &summary{
		ID:         ps.ID,
		Args:       process.Args,
		Command:    command(process.Args),
		Status:     ps.Status,
		ExitStatus: ps.State.ExitStatus,
		OOMKilled:  ps.State.OOMKilled,
		Image:      ps.Record.Annotation(record.AnnotationImage),
		Source:     ps.Record.Annotation(record.AnnotationSource),
		Created:    ps.State.Created,
		Started:    ps.State.Started,
		Finished:   ps.State.Finished,
		Name:       ps.Record.Annotation(record.AnnotationName),
	}
	if ps.Status == container.Running || ps.Status == container.Paused {
		s.Address = ps.Record.Annotation(record.AnnotationAddress)
		s.ExitStatus = nil
	}
	return s, nil
}

// command shows the arguments as they were typed: a line for the shell stands
// alone.
func command(args []string) string {
	if len(args) == 3 && args[0] == "/bin/sh" && args[1] == "-c" {
		return args[2]
	}
	return strings.Join(args, " ")
}

func (s *summary) status() string {
	if s.Status != container.Exited || s.ExitStatus == nil {
		return string(s.Status)
	}
	how := strconv.Itoa(*s.ExitStatus)
	if s.OOMKilled {
		how += ", out of memory"
	}
	return string(s.Status) + " (" + how + ")"
}
