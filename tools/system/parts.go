package system

import (
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"shocker.sh/lib/stage"
	"shocker.sh/tools/internal/porcelain"
)

// Parts returns the command that shows who serves each station.
func Parts(stations []string) *cli.Command {
	return &cli.Command{
		Name:  "parts",
		Usage: "show which program serves each station",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "q", Usage: "names only"},
			&cli.BoolFlag{Name: "json", Usage: "one JSON object a line"},
		},
		Action: func(c *cli.Context) error {
			if err := porcelain.NoArgs(c); err != nil {
				return err
			}
			host := stage.FromEnv()
			self, err := os.Executable()
			if err != nil {
				return err
			}
			list := porcelain.List{Header: []string{"STATION", "PROGRAM"}}
			for _, name := range stations {
				program, err := host.Resolve(name)
				if err != nil {
					return err
				}
				if program == "" {
					program = self
					if beside := filepath.Join(filepath.Dir(self), name); name == "shocker-pull" || name == "shocker-unpack" {
						program = beside
					}
				}
				list.Rows = append(list.Rows, porcelain.Row{
					ID:      name,
					Columns: []string{name, program},
					JSON:    map[string]string{"station": name, "program": program},
				})
			}
			return list.Print(c)
		},
	}
}
