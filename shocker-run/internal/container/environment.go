package container

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/passwd"
	"shocker.sh/lib/spawn"
)

// environment is what a program gets of process.env: of a name that appears
// twice the last value, as runc has it. needsHome says that there is no HOME,
// or an empty one, which counts as none.
func environment(env []string) (list []string, needsHome bool) {
	last := make(map[string]int)
	for i, v := range env {
		name, _, _ := strings.Cut(v, "=")
		last[name] = i
	}
	needsHome = true
	for i, v := range env {
		name, value, _ := strings.Cut(v, "=")
		if last[name] != i || name == "HOME" && value == "" {
			continue
		}
		needsHome = needsHome && name != "HOME"
		list = append(list, v)
	}
	return list, needsHome
}

// listenFDs tells a program of sockets that it gets from descriptor 3 up
// (sd_listen_fds(3)).
func listenFDs(n int) []string {
	if n == 0 {
		return nil
	}
	return []string{"LISTEN_FDS=" + strconv.Itoa(n), "LISTEN_PID=1"}
}

// maxHome is the room for a HOME that is not known yet.
const maxHome = unix.PathMax

// strings puts an environment into the table. A HOME that needs the
// container's files is filled in once they are there: see setHome.
func (b *builder) environment(env []string) (list, home spawn.Ref) {
	env, needsHome := environment(env)
	if !needsHome {
		return b.Strings(env), 0
	}
	// All of the room is one string to Strings; setHome ends it earlier.
	room := strings.Repeat("/", maxHome)
	list, refs := b.StringRefs(append(env, "HOME="+room))
	return list, refs[len(refs)-1]
}

// setHome writes the home directory of the container's user, as its own
// /etc/passwd has it, into the environment of the waiting process.
func (c *Container) setHome(pid int) error {
	if c.home == 0 {
		return nil
	}
	home, err := c.homeOf(pid)
	if err == nil {
		c.proc.Fill(c.home, append([]byte("HOME="+home), 0))
	}
	return err
}

// homeOf looks it up in the root of the process.
func (c *Container) homeOf(pid int) (string, error) {
	root, err := os.Open(fmt.Sprintf("/proc/%d/root", pid))
	if err != nil {
		return "", err
	}
	defer root.Close()
	home := "/"
	user, err := passwd.Lookup(root, strconv.FormatUint(uint64(c.spec.Process.User.UID), 10))
	switch {
	case err != nil:
		c.warn(fmt.Errorf("HOME is /: %w", err)) // the files are the image's affair
	case len(user.Home) <= maxHome && !strings.ContainsRune(user.Home, 0):
		home = user.Home
	}
	return home, nil
}

// warn tells the caller of something that is left out, as the spec wants it.
func (c *Container) warn(err error) {
	if c.o.Warn != nil {
		c.o.Warn(err)
	}
}
