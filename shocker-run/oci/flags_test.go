package oci

import (
	"strings"
	"testing"
)

func TestArrange(t *testing.T) {
	for in, want := range map[string]string{
		"oci":                                    "oci",
		"oci --version":                          "oci --version",
		"oci --root":                             "oci --root",
		"oci nosuch a -b":                        "oci nosuch a -b",
		"oci state one":                          "oci state -- one",
		"oci delete one -f":                      "oci delete --force -- one",
		"oci --root kill kill one -a KILL":       "oci --root kill kill --all -- one KILL",
		"oci --debug --root=x update a -r=1 -b":  "oci --debug --root=x update --resources=1 -b -- a",
		"oci update -r - a --pids-limit=-1":      "oci update --resources - --pids-limit=-1 -- a",
		"oci update a --pids-limit -1":           "oci update --pids-limit -1 -- a",
		"oci kill one -- -9":                     "oci kill -- one -9",
		"oci run one -b":                         "oci run --bundle",
		"oci exec -t -u":                         "oci exec --tty --user",
		"oci help":                               "oci --help",
		"oci --debug help run":                   "oci --debug run --help",
		"oci exec one ls -l -e":                  "oci exec -- one ls -l -e",
		"oci exec -e A=b --env C=d one -- ls":    "oci exec --env A=b --env C=d -- one -- ls",
		"oci exec -dt --user=1 -u 2 one env":     "oci exec -dt --user=1 --user 2 -- one env",
		"oci exec -- one ls":                     "oci exec -- one ls",
		"oci --log exec exec --tty one ps --tty": "oci --log exec exec --tty -- one ps --tty",
		"oci ps -f json one -f":                  "oci ps --format json -- one -f",
	} {
		got := strings.Join(arrange((&tool{}).command(), strings.Fields(in)), " ")
		if got != want {
			t.Errorf("arrange(%s) = %s; want %s", in, got, want)
		}
	}
}
