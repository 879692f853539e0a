package cg

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"

	"shocker.sh/lib/applet"
	"shocker.sh/lib/cgroup/group"
	"shocker.sh/lib/cgroup/hierarchy"
	"shocker.sh/lib/stage"
)

// listed is a group with the name it has below the parent.
type listed struct {
	ID string `json:"id"`
	*Stats
}

func list(c *cli.Context) error {
	if c.NArg() > 0 {
		return applet.Usagef("list takes no argument %q", c.Args().First())
	}
	host, out := stage.FromEnv(), applet.Streams(c).Out
	ids, err := IDs(host)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(out)
	for _, id := range ids {
		if c.Bool("quiet") {
			if _, err := fmt.Fprintln(out, id); err != nil {
				return err
			}
			continue
		}
		g, err := At(host, below(host, id))
		if err != nil {
			return err
		}
		s, err := g.Stats()
		if err != nil {
			return err
		}
		if c.Bool("json") {
			err = enc.Encode(listed{id, s})
		} else {
			_, err = fmt.Fprintf(out, "%s\t%s\t%s\n", id, pidsOf(s), memoryOf(s))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func pidsOf(s *Stats) string {
	if s.Pids == nil {
		return "-"
	}
	return fmt.Sprint(s.Pids.Current)
}

func memoryOf(s *Stats) string {
	if s.Memory == nil {
		return "-"
	}
	return fmt.Sprint(s.Memory.Usage)
}

// IDs lists the groups that shocker-cg made directly below the parent, by
// name: those of containers, and parents of others if there are any.
func IDs(h stage.Host) ([]string, error) {
	found, err := hierarchy.Find(h.CgroupRoot)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, hier := range found {
		entries, err := os.ReadDir(filepath.Join(hier.Mount, h.CgroupParent))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			if !e.IsDir() {
				continue
			}
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			if group.Ours(info) && !slices.Contains(ids, e.Name()) {
				ids = append(ids, e.Name())
			}
		}
	}
	slices.Sort(ids)
	return ids, nil
}
