package testkit

import "testing"

// As written by a test binary with -test.v=test2json.
const sample = "\x16=== RUN   TestX\n    x_test.go:3: hi\nno newline\x16=== RUN   TestX/a/b\n" +
	"\x16=== PAUSE TestX/a/b\n\x16=== NAME  TestX\n\x16=== RUN   TestX/s\n    x_test.go:3: why\n" +
	"\x16--- SKIP: TestX/s (0.00s)\n\x16=== NAME  TestX\n\x16=== CONT  TestX/a/b\n    x_test.go:3: in a\n" +
	"\x16=== RUN   TestX/a/b/deep\n    x_test.go:3: bad\n        lines\n\x16--- FAIL: TestX/a/b/deep (0.00s)\n" +
	"\x16=== RUN   TestX/cut\n"

func TestParse(t *testing.T) {
	v := parse("TestX", []byte(sample))
	if v.state != "" || v.out.String() != "    x_test.go:3: hi\nno newline" {
		t.Errorf("TestX is %q with %q", v.state, v.out.String())
	}
	for i, want := range []struct{ name, state string }{{"a/b", ""}, {"s", "SKIP"}, {"cut", ""}} {
		if got := v.subs[i]; got.name != want.name || got.state != want.state {
			t.Errorf("subtest %d is %s %q; want %s %q", i, got.name, got.state, want.name, want.state)
		}
	}
	deep := v.subs[0].subs[0]
	if deep.name != "deep" || deep.state != "FAIL" || deep.out.String() != "    x_test.go:3: bad\n        lines\n" {
		t.Errorf("the deep one is %s %q %q", deep.name, deep.state, deep.out.String())
	}
}

// A host made in a subtest has only that subtest's verdict.
func TestParseOfSubtest(t *testing.T) {
	out := "\x16=== RUN   TestX\n\x16=== RUN   TestX/s\n\x16--- SKIP: TestX/s (0.00s)\n\x16--- PASS: TestX (0.00s)\n"
	if v := parse("TestX/s", []byte(out)); v.state != "SKIP" || len(v.subs) != 0 {
		t.Errorf("TestX/s is %q with %d subtests", v.state, len(v.subs))
	}
}
