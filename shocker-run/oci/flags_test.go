package oci

import (
	"strings"
	"testing"
)

func TestFlagsFirst(t *testing.T) {
	for in, want := range map[string]string{
		"oci":                              "oci",
		"oci --version":                    "oci --version",
		"oci --root":                       "oci --root",
		"oci nosuch a -b":                  "oci nosuch a -b",
		"oci state one":                    "oci state -- one",
		"oci delete one -f":                "oci delete -f -- one",
		"oci --root kill kill one -a KILL": "oci --root kill kill -a -- one KILL",
		"oci --debug --root=x update a --memory 1g": "oci --debug --root=x update --memory 1g -- a",
		"oci update -r - a --pids-limit=-1":         "oci update -r - --pids-limit=-1 -- a",
		"oci update a --pids-limit -1":              "oci update --pids-limit -1 -- a",
		"oci kill one -- -9":                        "oci kill -- one -9",
		"oci run one -b":                            "oci run -b -- one",
		"oci exec one ls -l":                        "oci exec one ls -l",
		"oci --log exec exec --tty one ps --tty":    "oci --log exec exec --tty one ps --tty",
		"oci ps one -f":                             "oci ps one -f",
	} {
		got := strings.Join(flagsFirst((&tool{}).command(), strings.Fields(in)), " ")
		if got != want {
			t.Errorf("flagsFirst(%s) = %s; want %s", in, got, want)
		}
	}
}
