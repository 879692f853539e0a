package e2e

import (
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"shocker.sh/lib/testkit"
)

// scripts are stations of others, each in the place of one of ours.
//
//go:embed testdata/stations
var scripts embed.FS

// stations are the names of the scripts, in the order of the pipeline.
var stations = []string{"shocker-spec", "shocker-subvol", "shocker-net", "shocker-cg", "shocker-run"}

// install puts the named stations into a directory of their own, which only
// root can change.
func install(t *testing.T, h *testkit.Host, names ...string) string {
	t.Helper()
	testkit.Requires(t, "runc", "jq")
	dir := filepath.Join(h.Dir, "parts-"+strings.Join(names, ""))
	for _, name := range append(names, "undo.sh") {
		text, err := scripts.ReadFile("testdata/stations/" + name)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), string(text))
	}
	return dir
}

// choices are the ways to replace stations: each by itself, and all at once.
func choices() (all [][]string) {
	for _, s := range stations {
		all = append(all, []string{s})
	}
	return append(all, stations)
}

// owned makes an image in which a file belongs to others than root.
func owned(t *testing.T, h *testkit.Host) string {
	t.Helper()
	ok(t, h.Sh(t, "cp -a "+h.Busybox(t)+" tree && mkdir -p tree/srv && touch tree/srv/file && chown 33:44 tree/srv/file"))
	return strings.TrimSpace(strings.TrimPrefix(h.Must(t, "init", "tree"), "Created: "))
}

// TestPipelineReplacedStation puts another's program in the place of each
// station in turn, by SHOCKER_PATH and in a pasted pipeline: the session still
// works, files inside have the right owners, and nothing is left.
func TestPipelineReplacedStation(t *testing.T) {
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		t.Chdir(h.Dir)
		image := owned(t, h)
		before := idle(t, h, image)
		for _, names := range choices() {
			dir := install(t, h, names...)
			t.Setenv("SHOCKER_PATH", dir)
			parts := h.Must(t, "parts")
			for _, name := range stations {
				if is := strings.Contains(parts, name+"\t"+filepath.Join(dir, name)+"\n"); is != slices.Contains(names, name) {
					t.Errorf("%s replaced: shocker parts: %s", names, parts)
				}
			}
			for _, pasted := range []bool{false, true} {
				s := &session{t, h, names, image, pasted}
				s.exits()
				back(t, h, before, fmt.Sprintf("%s replaced, pasted %v", names, pasted))
				s.runsOn()
				back(t, h, before, fmt.Sprintf("%s replaced, pasted %v, detached", names, pasted))
			}
			t.Setenv("SHOCKER_PATH", "")
		}
	})
}

// session is one with some stations replaced.
type session struct {
	t      *testing.T
	h      *testkit.Host
	names  []string // of the stations that are replaced
	image  string
	pasted bool
}

// run runs a program in the one form or the other.
func (s *session) run(args string) testkit.Result {
	s.t.Helper()
	line := "shocker run " + args
	if s.pasted {
		line = ok(s.t, s.h.Sh(s.t, "shocker run -n "+args))
	}
	return s.h.Sh(s.t, "echo input | "+group(line))
}

func (s *session) errorf(format string, args ...any) {
	s.t.Helper()
	s.t.Errorf("%s replaced, pasted %v: %s", s.names, s.pasted, fmt.Sprintf(format, args...))
}

// exits follows a container to its end, starts it again, and removes it.
func (s *session) exits() {
	s.t.Helper()
	const script = `stat -c %u:%g /bin/busybox /srv/file; touch /tmp/x; stat -c %u /tmp/x; cat; exit 7`
	const want = "0:0\n33:44\n0\n"
	r := s.run("-i " + s.image + " sh -c '" + script + "'")
	if r.Code != 7 || r.Stdout != want+"input\n" || r.Stderr != "" {
		s.errorf("run: %+v; want status 7 and %q", r, want+"input\n")
	}
	all := ids(s.t, s.h)
	if len(all) != 1 {
		s.t.Fatalf("%s replaced, pasted %v: the containers are %q", s.names, s.pasted, all)
	}
	id := all[0]
	if list := s.h.Must(s.t, "ps", "-l"); !strings.Contains(list, "\texited") {
		s.errorf("ps -l: %s; want it exited", list)
	}
	last := slices.Contains(s.names, "shocker-run")
	if log := s.h.Shocker(s.t, "logs", id); !last && log.Stdout != want+"input\n" {
		s.errorf("logs: %+v; want what it printed", log)
	}
	s.h.Must(s.t, "gc", "--created") // which has nothing to do with it
	if again := s.h.Shocker(s.t, "start", "-a", id); !last && (again.Code != 7 || again.Stdout != want) {
		s.errorf("start -a: %+v; want the same again", again)
	}
	s.h.Must(s.t, "rm", id)
	if r := s.run("--rm " + s.image + " cat"); r.Code != 0 || r.Stdout != "" || len(ids(s.t, s.h)) != 0 {
		s.errorf("run --rm: %+v; want nothing from it, and nothing left", r)
	}
	s.h.Must(s.t, "gc") // the host's network
}

// runsOn detaches a container, and removes it while it runs.
func (s *session) runsOn() {
	s.t.Helper()
	id := strings.TrimSpace(ok(s.t, s.run("-d "+s.image+" sleep 1000")))
	if list := s.h.Must(s.t, "ps", "-l"); !strings.Contains(list, id+"\trunning") && !strings.Contains(list, "\trunning\t") {
		s.errorf("ps -l: %s; want it running", list)
	}
	s.h.Must(s.t, "gc", "--created")
	if !slices.Contains(s.names, "shocker-run") {
		if r := s.h.Shocker(s.t, "exec", id, "hostname"); r.Code != 0 {
			s.errorf("exec: %+v", r)
		}
	}
	if r := s.h.Shocker(s.t, "rm", id); r.Code == 0 || !strings.Contains(r.Stderr, "running") {
		s.errorf("rm while it runs: %+v; want it refused", r)
	}
	s.h.Must(s.t, "rm", "-f", id)
}

// TestUntrustedStation: what somebody besides root could have put there is not
// executed, and not passed over either.
func TestUntrustedStation(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		dir := filepath.Join(h.Dir, "parts")
		program := write(t, filepath.Join(dir, "shocker-net"), "#!/bin/sh\ntouch "+h.Dir+"/executed\n")
		before := warmUp(t, h, image)
		for _, change := range []string{"chmod 777 " + dir, "chmod 722 " + program, "chown 1000 " + program} {
			ok(t, h.Sh(t, change))
			for _, command := range []string{"run --rm " + image + " true", "run -n " + image + " true", "parts"} {
				r := h.Sh(t, "SHOCKER_PATH="+dir+" shocker "+command)
				if r.Code == 0 || !strings.Contains(r.Stderr, program) || !strings.Contains(r.Stderr, "not safe") {
					t.Errorf("%s, then %s: %+v", change, command, r)
				}
			}
			ok(t, h.Sh(t, "chmod 755 "+dir+" "+program+"; chown 0 "+program))
		}
		if _, err := os.Stat(h.Dir + "/executed"); err == nil {
			t.Error("the program was executed")
		}
		h.Settle(t, before, "files")
	})
}

// TestStationThatFails: the composer takes back what the others did.
func TestStationThatFails(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		before := warmUp(t, h, image)
		for _, script := range []string{
			"#!/bin/sh\nexit 3\n",
			"#!/bin/sh\ncat >/dev/null\n", // no record
			"#!/bin/sh\nsed 's/ps_[0-9]*/ps_1/g'\n",
		} {
			dir := filepath.Join(h.Dir, "parts")
			write(t, filepath.Join(dir, "shocker-cg"), script)
			r := h.Sh(t, "SHOCKER_PATH="+dir+" shocker run "+image+" true")
			if r.Code != 125 || !strings.Contains(r.Stderr, "shocker-cg") {
				t.Errorf("a stage %q: %+v; want status 125", script, r)
			}
			h.Settle(t, before, "files")
		}
	})
}
