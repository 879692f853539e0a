package main

import (
	"fmt"
	"strings"
	"testing"
)

func TestCounts(t *testing.T) {
	ev := func(action, test string) string {
		return fmt.Sprintf(`{"Action":%q,"Package":"p","Test":%q}`+"\n", action, test)
	}
	for _, c := range []struct{ name, in, want string }{
		{"plain", ev("run", "A") + ev("pass", "A") + ev("run", "B") + ev("fail", "B") + ev("fail", ""), "1 passed, 1 failed, 0 skipped"},
		{"only subtests count", ev("run", "A") + ev("run", "A/x") + ev("run", "A/y") + ev("pass", "A/x") + ev("fail", "A/y") + ev("fail", "A"), "1 passed, 1 failed, 0 skipped"},
		{"a failed package without a failed test", ev("run", "A") + ev("pass", "A") + ev("fail", ""), "1 passed, 1 failed, 0 skipped"},
		{"a test that never ended", ev("run", "A") + "# status 2\n", "0 passed, 1 failed, 0 skipped"},
		{"a run that died", ev("run", "A") + ev("pass", "A") + "# status 125\n", "1 passed, 1 failed, 0 skipped"},
		{"skipped everywhere", ev("run", "A") + ev("skip", "A") + "# run two\n" + ev("run", "A") + ev("skip", "A"), "0 passed, 0 failed, 1 skipped"},
		{"skipped in one run", ev("run", "A") + ev("skip", "A") + "# run two\n" + ev("run", "A") + ev("pass", "A"), "1 passed, 0 failed, 0 skipped"},
		{"skipped where another run has subtests", ev("run", "A") + ev("skip", "A") + "# run two\n" + ev("run", "A") + ev("run", "A/x") + ev("pass", "A/x") + ev("pass", "A"), "1 passed, 0 failed, 0 skipped"},
		{"nothing", "", "0 passed, 1 failed, 0 skipped"},
		{"does not build", `{"ImportPath":"p [p.test]","Action":"build-output","Output":"oops\n"}` + "\n" + `{"ImportPath":"p [p.test]","Action":"build-fail"}` + "\n" + `{"Action":"fail","Package":"p","FailedBuild":"p [p.test]"}` + "\n# status 1\n", "0 passed, 1 failed, 0 skipped"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			s := newSummary(&out)
			if err := s.read(strings.NewReader("# run one\n" + c.in)); err != nil {
				t.Fatal(err)
			}
			s.close()
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			if got := lines[len(lines)-1]; got != c.want {
				t.Errorf("last line = %q; want %q\n%s", got, c.want, out.String())
			}
		})
	}
}
