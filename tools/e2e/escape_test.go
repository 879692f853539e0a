package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"shocker.sh/lib/testkit"
)

// The tests named TestEscape are attacks that were successful on some runtime,
// or would be on a careless one. Each says what guards us, and was seen to fail
// without it.
//
// An attack is a tree for the image, a change of the config as a filter of jq,
// and a program; so it can be aimed at shocker's own pipeline, and at the
// command line of an OCI runtime with a bundle. The OCI runtimes named in
// SHOCKER_ESCAPE_OCI are attacked as well, which shows what an attack is worth.

// TestMain: the test's own binary is also the enemy in the container, or a
// service.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "enemy":
		os.Exit(enemy(os.Args[1:]))
	case "service":
		os.Exit(service(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// aim is a runtime that attacks are aimed at, and how it maps users.
type aim struct {
	*testing.T
	h       *testkit.Host
	runtime string // the OCI runtime's command; "": shocker
	host    bool   // no user namespace: root inside is root outside
}

// aims are all that an attack is aimed at.
func aims(t *testing.T, h *testkit.Host) (all []*aim) {
	t.Helper()
	for _, r := range append([]string{"", "shocker-oci"}, strings.Fields(os.Getenv("SHOCKER_ESCAPE_OCI"))...) {
		all = append(all, &aim{t, h, r, false}, &aim{t, h, r, true})
	}
	return all
}

func (a *aim) String() string {
	name, users := a.runtime, "own users"
	if name == "" {
		name = "shocker"
	}
	if a.host {
		users = "the host's users"
	}
	return name + " with " + users
}

// errorf is Errorf that says whom the attack was aimed at.
func (a *aim) errorf(format string, args ...any) {
	a.Helper()
	a.Errorf("%s: %s", a, fmt.Sprintf(format, args...))
}

// tree makes a root file system of busybox in which /enemy is this binary.
func tree(t *testing.T, h *testkit.Host) string {
	t.Helper()
	dir := h.Busybox(t)
	ok(t, h.Command(t, "cp", fmt.Sprintf("/proc/%d/exe", os.Getpid()), dir+"/enemy"))
	return dir
}

// target is a container that is made ready for an attack: what it is run from.
type target struct {
	*aim
	tree   string
	image  string // of shocker
	bundle string // of the OCI runtime
	flags  string // of shocker-spec
	filter string // of jq, for the config
	late   bool   // only the last stage gets what the filter makes
	id     string
}

// firstUser of the host that a bundle's own users are mapped to.
const firstUser = 1900000000

// prepare makes a target of a tree.
func (a *aim) prepare(tree, filter string) *target {
	a.Helper()
	g := &target{aim: a, tree: tree, filter: "."}
	if filter != "" {
		g.filter = filter
	}
	g.image = strings.TrimSpace(strings.TrimPrefix(a.h.Must(a.T, "init", tree), "Created: "))
	if a.host {
		g.flags = "--userns host"
	}
	if a.runtime == "" {
		return g
	}
	g.bundle = filepath.Join(a.h.Dir, "bundle")
	ok(a.T, a.h.Sh(a.T, "rm -rf "+g.bundle+" && mkdir "+g.bundle+" && cp -a "+tree+" "+g.bundle+"/rootfs"))
	if !a.host {
		ok(a.T, a.h.Sh(a.T, fmt.Sprintf("cd %s && chown -hR %d:%[2]d rootfs", g.bundle, firstUser)))
	}
	return g
}

// line is the shell command that runs a program in the target.
func (g *target) line(detach bool, args ...string) string {
	g.Helper()
	record := fmt.Sprintf("shocker-spec %s %s %s | ", g.flags, g.image, quote(args...))
	filter := "jq -c " + quote(g.filter)
	d := ""
	if detach {
		d = " --detach"
	}
	if g.runtime == "" {
		stages := "shocker-subvol up | shocker-net up --network none | shocker-cg up | "
		if g.late {
			filter, stages = "cat", stages+filter+" | "
		}
		return "{ " + record + filter + " | " + stages + "shocker-run --record - --stdin 3" + d + "; } 3<&0"
	}
	// Without our other stages; /etc's files go with the container's run dir.
	g.id = "escape"
	return fmt.Sprintf(`%s jq -c '.root.path = "rootfs" | del(.hooks) | .mounts |= map(select(.destination | startswith("/etc/") | not)) |
		if .linux.uidMappings then .linux.uidMappings[].hostID = %d | .linux.gidMappings[].hostID = %[2]d else . end' | %[3]s >%[4]s/config.json
		shocker rm $(shocker ps -q) >%[4]s/removed
		%[5]s run%[6]s --bundle %[4]s %[7]s`, record, firstUser, filter, g.bundle, g.runtime, d, g.id)
}

// quote makes words of a shell's command line of strings.
func quote(args ...string) string {
	var words []string
	for _, a := range args {
		words = append(words, "'"+strings.ReplaceAll(a, "'", `'\''`)+"'")
	}
	return strings.Join(words, " ")
}

// run runs a program to its end, in a container that goes again.
func (g *target) run(args ...string) testkit.Result {
	g.Helper()
	r := g.h.Sh(g.T, g.line(false, args...))
	g.remove()
	return r
}

// start runs a program in the background.
func (g *target) start(args ...string) {
	g.Helper()
	r := g.h.Sh(g.T, g.line(true, args...)+" >started 2>&1 </dev/null || { cat started; exit 1; }")
	if r.Code != 0 {
		g.Fatalf("%s: start %q: %+v", g.aim, args, r)
	}
	if g.runtime == "" {
		g.id = ids(g.T, g.h)[0]
	}
}

// exec runs a further program in the container.
func (g *target) exec(flags string, args ...string) testkit.Result {
	g.Helper()
	command := "shocker"
	if g.runtime != "" {
		command = g.runtime
	}
	return g.h.Sh(g.T, fmt.Sprintf("%s exec %s %s %s", command, flags, g.id, quote(args...)))
}

// remove removes the container whatever it does.
func (g *target) remove() {
	g.Helper()
	if g.runtime == "" {
		for _, id := range ids(g.T, g.h) {
			g.h.Must(g.T, "rm", "-f", id)
		}
		return
	}
	g.h.Sh(g.T, g.runtime+" delete --force "+g.id)
}
