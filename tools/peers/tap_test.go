package peers

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// outcome is what a program said in the Test Anything Protocol (version 13).
type outcome struct {
	said map[string]string // ok, not ok or skip, by assertion
	bare []string          // errors that belong to no assertion
	end  string            // how the program ended, if not with 0
}

var (
	assertion = regexp.MustCompile(`^(ok|not ok) *\d* *-? *([^#]*)(?:# *(SKIP|TODO)(.*))?$`)
	plan      = regexp.MustCompile(`^1\.\.\d+$`)
	fickle    = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9]{7,}`)
)

// parse reads the output of a program. What a test inside of the container
// printed is a JSON string in a diagnostic, and is read too.
func parse(text, end string) outcome {
	o := outcome{said: map[string]string{}, end: end}
	o.read(text, "")
	return o
}

func (o *outcome) read(text, prefix string) {
	assertions, errs, planned := 0, []string(nil), false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if m := assertion.FindStringSubmatch(line); m != nil {
			assertions++
			state := m[1]
			if m[3] != "" {
				state = "skip"
			}
			o.say(prefix+strings.TrimSpace(m[2]+m[4]), state)
			continue
		}
		planned = planned || plan.MatchString(line)
		key, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
		var s string
		if !ok || !strings.HasPrefix(line, "  ") || json.Unmarshal([]byte(strings.TrimSuffix(value, ",")), &s) != nil {
			continue
		}
		switch key {
		case `"stdout"`:
			o.read(s, prefix+"inside: ")
		case `"error"`:
			errs = append(errs, s)
		}
	}
	if prefix != "" {
		return
	}
	if assertions == 0 {
		o.bare = errs
	}
	if !planned && o.end == "" {
		o.end = "no plan"
	}
}

// say names the second assertion of the same text differently.
func (o *outcome) say(what, state string) {
	what = fickle.ReplaceAllString(what, "…")
	name := what
	for n := 2; o.said[name] != ""; n++ {
		name = fmt.Sprintf("%s (%d)", what, n)
	}
	o.said[name] = state
}

func (o outcome) count(state string) (n int) {
	for _, s := range o.said {
		if s == state {
			n++
		}
	}
	return n
}

// passed: it came to its end, asserted something, and complained of nothing.
func (o outcome) passed() bool {
	return o.end == "" && len(o.bare) == 0 && o.count("not ok") == 0 && o.count("ok") > 0
}

func (o outcome) String() string {
	var parts []string
	for _, state := range []string{"ok", "not ok"} {
		if n := o.count(state); n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, state))
		}
	}
	if len(o.bare) > 0 {
		parts = append(parts, "complains")
	}
	if o.end != "" {
		parts = append(parts, o.end)
	}
	if len(parts) == 0 {
		return "asserts nothing"
	}
	return strings.Join(parts, ", ")
}

// lacks lists what the reference can do and o cannot.
func (o outcome) lacks(ref outcome) (lines []string) {
	for name, state := range ref.said {
		if now := o.said[name]; state == "ok" && now != "ok" {
			if now == "" {
				now = "not said"
			}
			lines = append(lines, now+": "+name)
		}
	}
	slices.Sort(lines)
	if n := len(lines); n > 10 {
		lines = append(lines[:10], fmt.Sprintf("and %d more", n-10))
	}
	if ref.passed() && !o.passed() && len(lines) == 0 {
		lines = append(lines, o.String())
	}
	return lines
}

func TestTAP(t *testing.T) {
	good := "TAP version 13\nok 1 - a\n  ---\n  {\n    \"error\": \"exit status 1\"\n  }\n  ...\nok 2 - a\nok 3 # SKIP b\n1..3\n"
	inner := "TAP version 13\n  ---\n  {\n    \"stderr\": \"\",\n    \"stdout\": \"ok 1 - x\\nnot ok 2 - y\\n1..2\\n\"\n  }\n  ...\nnot ok 1 - check\n1..1\n"
	bare := "TAP version 13\n  ---\n  {\n    \"error\": \"hooks MUST be called\"\n  }\n  ...\n1..0\n"
	for _, c := range []struct {
		name, ref, cand, end string
		cell, lacks          string
	}{
		{"the same", good, good, "", "2 ok", ""},
		{"one is not ok", good, strings.Replace(good, "ok 2", "not ok 2", 1), "", "1 ok, 1 not ok", "not ok: a (2)"},
		{"one is not said", good, strings.Replace(good, "ok 2 - a\n", "", 1), "", "1 ok", "not said: a (2)"},
		{"it ends badly", good, good, "exit status 1", "2 ok, exit status 1", "2 ok, exit status 1"},
		{"it is cut", good, strings.Replace(good, "1..3", "", 1), "", "2 ok, no plan", "2 ok, no plan"},
		{"an assertion inside", strings.ReplaceAll(inner, "not ok", "ok"), inner, "", "1 ok, 2 not ok", "not ok: check\nnot ok: inside: y"},
		{"the reference complains", bare, "panic", "exit status 2", "exit status 2", ""},
		{"it complains", bare, bare, "", "complains", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := parse(c.cand, c.end)
			if got := o.String(); got != c.cell {
				t.Errorf("parse() = %q; want %q", got, c.cell)
			}
			if got := strings.Join(o.lacks(parse(c.ref, "")), "\n"); got != c.lacks {
				t.Errorf("lacks() = %q; want %q", got, c.lacks)
			}
		})
	}
}
