package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// event is a line of test2json (go doc test2json), or of a build that failed.
type event struct {
	Action, Package, ImportPath, Test, Output string

	FailedBuild string  // the ImportPath of the build that failed a package
	Elapsed     float64 // seconds
}

// result is a test, a package (no test's name) or a build in one run.
type result struct {
	run, pkg, test string
	state          string // pass, fail, skip; "" while it runs
	parent         bool   // it has subtests
	blamed         bool   // one of its tests has failed
	out            strings.Builder
}

func (r *result) name() string {
	if r.test == "" {
		return r.pkg
	}
	return r.pkg + " " + r.test
}

type summary struct {
	w       io.Writer
	run     string
	results map[string]*result // of this run, by name
	all     []*result
}

func newSummary(w io.Writer) *summary {
	return &summary{w: w, results: map[string]*result{}}
}

func (s *summary) read(r io.Reader) error {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadString('\n')
		s.line(strings.TrimRight(line, "\n"))
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (s *summary) line(line string) {
	var e event
	if json.Unmarshal([]byte(line), &e) == nil && e.Action != "" {
		s.event(e)
		return
	}
	if name, ok := strings.CutPrefix(line, "# run "); ok {
		s.run, s.results = name, map[string]*result{}
		fmt.Fprintf(s.w, "== %s\n", name)
	} else if status, ok := strings.CutPrefix(line, "# status "); ok {
		s.endRun(status)
	} else if line != "" {
		fmt.Fprintln(s.w, line)
	}
}

func (s *summary) event(e event) {
	if e.Package == "" {
		e.Package = e.ImportPath
	}
	r := s.get(e.Package, e.Test)
	switch e.Action {
	case "output", "build-output":
		r.out.WriteString(e.Output)
	case "build-fail":
		s.fail(r)
	case "pass", "skip":
		r.state = e.Action
		s.tell(r, e.Elapsed)
	case "fail":
		r.blamed = r.blamed || e.FailedBuild != ""
		s.fail(r)
		s.tell(r, e.Elapsed)
	}
}

func (s *summary) get(pkg, test string) *result {
	key := pkg + " " + test
	if r := s.results[key]; r != nil {
		return r
	}
	if test != "" {
		s.get(pkg, "") // the one to stand above it
	}
	r := &result{run: s.run, pkg: pkg, test: test}
	s.results[key] = r
	s.all = append(s.all, r)
	if p := s.above(r); p != nil && test != "" {
		p.parent = true
	}
	return r
}

// above is the test of a subtest, the package of a test.
func (s *summary) above(r *result) *result {
	for name := r.test; name != ""; {
		name = name[:max(strings.LastIndex(name, "/"), 0)]
		if p := s.results[r.pkg+" "+name]; p != nil {
			return p
		}
	}
	return nil
}

// fail puts the blame on the innermost: its parents need not be told apart.
func (s *summary) fail(r *result) {
	r.state = "fail"
	if p := s.above(r); p != nil {
		p.blamed = true
	}
}

// tell reports a package when it is done, and a failure at once.
func (s *summary) tell(r *result, elapsed float64) {
	if r.test != "" {
		if r.failed() {
			fmt.Fprintf(s.w, "FAIL %s %s\n", r.pkg, r.test)
		}
		return
	}
	count := 0
	for _, t := range s.results {
		if t.pkg == r.pkg && t.test != "" && t.counts() {
			count++
		}
	}
	if count > 0 || r.state == "fail" {
		fmt.Fprintf(s.w, "%-4s %s (%d tests, %.1f s)\n", r.state, r.pkg, count, elapsed)
	}
}

// counts: a test without subtests does; anything if it alone is to blame.
func (r *result) counts() bool {
	return r.failed() || (r.test != "" && !r.parent && r.state != "fail")
}

// failed also says yes to a test that never ended.
func (r *result) failed() bool {
	if r.test != "" && r.state == "" {
		return true
	}
	return r.state == "fail" && !r.blamed
}

// endRun makes a failure of a run that ended badly without saying why.
func (s *summary) endRun(status string) {
	if status == "0" {
		return
	}
	for _, r := range s.results {
		if r.failed() {
			return
		}
	}
	r := s.get(s.run, "")
	r.state = "fail"
	fmt.Fprintf(&r.out, "ended with status %s, and no test failed\n", status)
}

// close tells what failed and what was skipped, with all they said, and ends
// with the counts.
func (s *summary) close() (failed, skipped int) {
	passed := 0
	passes := map[string]bool{}
	for _, r := range s.all {
		if r.state == "pass" {
			passes[r.name()] = true // also one with subtests
			if r.counts() {
				passed++
			}
		}
	}
	seen := map[string]bool{}
	for _, r := range s.all {
		switch name := r.name(); {
		case r.failed():
			failed++
			fmt.Fprintf(s.w, "\n== failed: %s (%s)\n%s", name, r.run, r.out.String())
		case r.counts() && r.state == "skip" && !passes[name] && !seen[name]:
			skipped++
			seen[name] = true
			fmt.Fprintf(s.w, "\n== skipped: %s (%s)\n%s", name, r.run, r.out.String())
		}
	}
	if failed+passed+skipped == 0 {
		failed++
		fmt.Fprintln(s.w, "no tests were run")
	}
	fmt.Fprintf(s.w, "%d passed, %d failed, %d skipped\n", passed, failed, skipped)
	return failed, skipped
}
