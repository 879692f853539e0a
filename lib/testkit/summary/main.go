// Command summary reads the output of several runs of `go test -json`, tells
// what happens, and ends with one line: "N passed, N failed, N skipped".
//
// Lines that are not JSON and begin with "#" are of scripts/test: "# run NAME"
// before a run and "# status N" with its exit status after it. A test that is
// skipped in one run and passes in another is not skipped: half of what tests
// cgroups needs another kernel. Tests that have subtests are not counted
// themselves. The exit status is 1 if a test failed; with -strict also if one
// was skipped.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	strict := flag.Bool("strict", false, "fail if a test was skipped in all runs")
	flag.Parse()
	s := newSummary(os.Stdout)
	if err := s.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "summary:", err)
		os.Exit(1)
	}
	failed, skipped := s.close()
	if failed > 0 || (*strict && skipped > 0) {
		os.Exit(1)
	}
}
