package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// list runs go list on packages of the workspace.
func list(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-tags=urfave_cli_no_docs"}, args...)...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %q: %v", args, err)
	}
	return strings.Fields(string(out))
}

// TestLeanBinary keeps out of the executable that starts containers what every
// start would pay for.
func TestLeanBinary(t *testing.T) {
	reasons := map[string]string{
		"net/http":                           "0.9 ms at every start",
		"crypto/tls":                         "comes with net/http, or makes it needed",
		"compress/gzip":                      "layers are unpacked by shocker-image",
		"github.com/klauspost/compress/zstd": "layers are unpacked by shocker-image",
		"github.com/cpuguy83/go-md2man/v2/md2man": "urfave/cli must be built with the tag urfave_cli_no_docs",
		"github.com/opencontainers/go-digest":     "regular expressions that are compiled at every start",
		"testing":                                 "a test's helper is linked in",
	}
	for _, pkg := range list(t, "-deps", "shocker.sh/tools/shocker") {
		if why, banned := reasons[pkg]; banned {
			t.Errorf("tools/shocker links %s: %s", pkg, why)
		}
	}
	// The library has it linked; what counts is what is compiled at a start.
	for _, line := range list(t, "-deps", "-f", `{{.ImportPath}}:{{join .Imports ","}}`, "shocker.sh/tools/shocker") {
		pkg, all, _ := strings.Cut(line, ":")
		if strings.HasPrefix(pkg, "shocker.sh/") && slices.Contains(strings.Split(all, ","), "regexp") {
			t.Errorf("%s imports regexp: one expression has cost 0.6 ms at every start", pkg)
		}
	}
}

// TestHouse keeps the parts apart: each can be replaced by itself.
func TestHouse(t *testing.T) {
	imports := list(t, "-f", `{{.ImportPath}}:{{join .Imports ","}}`,
		"shocker.sh/lib/...", "shocker.sh/tools/...", "shocker.sh/shocker-cg/...",
		"shocker.sh/shocker-net/...", "shocker.sh/shocker-pull/...", "shocker.sh/shocker-run/...")
	for _, line := range imports {
		pkg, all, _ := strings.Cut(line, ":")
		room := strings.Split(strings.TrimPrefix(pkg, "shocker.sh/"), "/")[0]
		dispatcher := pkg == "shocker.sh/tools/shocker" || pkg == "shocker.sh/tools/shocker-image"
		for _, imported := range strings.Split(all, ",") {
			if strings.HasPrefix(imported, "github.com/urfave/cli") && room == "lib" && pkg != "shocker.sh/lib/applet" {
				t.Errorf("%s imports %s: in lib only applet may", pkg, imported)
			}
			if strings.Contains(imported, ".") && room == "lib" && !allowedInLib(imported) {
				t.Errorf("%s imports %s: lib has only the standard library, x/sys and the specs", pkg, imported)
			}
			other, ok := strings.CutPrefix(imported, "shocker.sh/")
			if !ok {
				continue
			}
			other = strings.Split(other, "/")[0]
			if other != room && other != "lib" && !dispatcher {
				t.Errorf("%s imports %s: a part imports lib, never another part", pkg, imported)
			}
			if imported == "shocker.sh/tools/shocker" || imported == "shocker.sh/tools/shocker-image" {
				t.Errorf("%s imports the dispatcher", pkg)
			}
		}
	}
}

func allowedInLib(imported string) bool {
	for _, prefix := range []string{"shocker.sh/lib/", "golang.org/x/sys/", "github.com/opencontainers/", "github.com/urfave/cli"} {
		if strings.HasPrefix(imported, prefix) {
			return true
		}
	}
	return false
}
