package testkit

import (
	"bytes"
	"strings"
	"testing"
)

// marker stands before the lines that test2json reads (go doc test2json).
const marker = "\x16"

// verdict is a test of the inner process, with its subtests.
type verdict struct {
	name  string // last element
	state string // PASS, FAIL, SKIP, or "" if it did not come to an end
	out   strings.Builder
	subs  []*verdict
}

// replay reports the tests of the inner process as tests of this one.
func replay(t *testing.T, out []byte, err error) {
	t.Helper()
	v := parse(t.Name(), out)
	if v.state == "" || (err != nil && v.state != "FAIL") {
		t.Errorf("%sthe test's process ended early: %v", v.out.String(), err)
		v.state = ""
	}
	v.report(t)
}

func (v *verdict) report(t *testing.T) {
	t.Helper()
	for _, sub := range v.subs {
		t.Run(sub.name, func(t *testing.T) {
			t.Helper()
			if sub.state == "" {
				t.Error("did not come to an end")
			}
			sub.report(t)
		})
	}
	text := strings.TrimRight(v.out.String(), "\n")
	switch v.state {
	case "PASS":
		if text != "" {
			t.Log(text)
		}
	case "SKIP":
		t.Skip(text)
	case "FAIL":
		t.Log(text)
		t.Fail()
	}
}

// parse reads the output of a test binary with -test.v=test2json.
func parse(top string, out []byte) *verdict {
	all := map[string]*verdict{top: {name: top}}
	current := all[top]
	for line := range bytes.Lines(out) {
		text, frame, framed := strings.Cut(string(line), marker)
		current.out.WriteString(text)
		if f := strings.Fields(frame); framed && len(f) >= 3 {
			current = find(all, f[2], top)
			// "=== RUN   Name", also PAUSE, CONT, NAME; "--- PASS: Name (0.01s)"
			if f[0] == "---" {
				current.state = strings.TrimSuffix(f[1], ":")
			}
		}
	}
	return all[top]
}

// find gets the test of a name, a new one as a subtest of its parent. Names
// outside of top, such as the test that top is a subtest of, lead nowhere.
func find(all map[string]*verdict, name, top string) *verdict {
	if v := all[name]; v != nil {
		return v
	}
	v := &verdict{name: name}
	all[name] = v
	if !strings.HasPrefix(name, top+"/") {
		return v
	}
	// A subtest's own name may hold slashes: its parent is the longest there is.
	parent := name
	for all[parent] == nil || parent == name {
		parent = parent[:strings.LastIndex(parent, "/")]
	}
	v.name = strings.TrimPrefix(name, parent+"/")
	all[parent].subs = append(all[parent].subs, v)
	return v
}
