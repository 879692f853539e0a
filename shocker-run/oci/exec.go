package oci

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"

	"shocker.sh/lib/applet"
	"shocker.sh/shocker-run/internal/container"
	"shocker.sh/shocker-run/internal/signals"
)

// execFailed is the status of an exec that did not come to its program, as
// engines know it from runc.
const execFailed = 255

func (t *tool) execCommands() []*cli.Command {
	return []*cli.Command{{
		Name: "exec", Usage: "execute another program in a container", ArgsUsage: "ID PROGRAM [ARG...], or --process FILE ID",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "process", Aliases: []string{"p"}, Usage: "`FILE` of a process of the config, in the place of other flags and arguments"},
			&cli.BoolFlag{Name: "detach", Aliases: []string{"d"}, Usage: "do not wait for its end"},
			&cli.StringFlag{Name: "console-socket", Usage: "send the terminal's master to the unix socket at `PATH`"},
			&cli.StringFlag{Name: "pid-file", Usage: "write the pid of the process to `FILE`"},
			&cli.StringFlag{Name: "pidfd-socket", Usage: "send a pidfd of the process to the unix socket at `PATH`"},
			&cli.BoolFlag{Name: "tty", Aliases: []string{"t"}, Usage: "give it a terminal"},
			&cli.StringFlag{Name: "user", Aliases: []string{"u"}, Usage: "run it as `UID[:GID]`, which are numbers"},
			&cli.Int64SliceFlag{Name: "additional-gids", Aliases: []string{"g"}, Usage: "further groups: `GID`"},
			&cli.StringFlag{Name: "cwd", Usage: "working directory `DIR`"},
			&cli.StringSliceFlag{Name: "env", Aliases: []string{"e"}, KeepSpace: true, Usage: "`NAME=VALUE`, beside the container's"},
			&cli.StringSliceFlag{Name: "cap", Aliases: []string{"c"}, Usage: "capability beside the container's: `CAP_NAME`"},
			&cli.BoolFlag{Name: "no-new-privs", Usage: "set no_new_privs"},
			&cli.StringFlag{Name: "apparmor", Usage: "AppArmor `PROFILE`"},
			&cli.StringFlag{Name: "process-label", Usage: "SELinux `LABEL`"},
			&cli.IntFlag{Name: "preserve-fds", Usage: "pass on `N` descriptors from 3 up"},
			&cli.BoolFlag{Name: "ignore-paused", Usage: "also in a container that is paused; it goes on with it"},
			&cli.StringSliceFlag{Name: "cgroup", Usage: "put it into `[CONTROLLER[,...]:]PATH` below the container's cgroup"},
			&cli.BoolFlag{Name: "no-subreaper", Hidden: true},
		},
		Action: func(c *cli.Context) error {
			least := 2
			if c.IsSet("process") {
				least = 1
			}
			if err := arguments(c, least, -1); err != nil {
				return err
			}
			return t.exec(c)
		},
	}}
}

func (t *tool) exec(c *cli.Context) error {
	status, err := t.execute(c)
	if err != nil && status == 0 {
		status = execFailed
	}
	if status == 0 {
		return nil
	}
	return &applet.ExitError{Code: status, Err: err}
}

func (t *tool) execute(c *cli.Context) (_ int, retErr error) {
	b, err := t.open(c.Args().First())
	if err != nil {
		return 0, err
	}
	state, pidfd, err := b.status()
	if err != nil {
		return 0, err
	}
	if state == specs.StateStopped {
		return 0, ErrExecStopped
	}
	defer pidfd.Close()
	started := false
	defer func() {
		if !started && container.EndedUnder(retErr, pidfd) {
			retErr = ErrExecStopped
		}
	}()
	if state == paused && !c.Bool("ignore-paused") {
		return 0, ErrExecPaused
	}
	spec, err := b.spec()
	if err != nil {
		return 0, err
	}
	p, err := execProcess(c, spec)
	if err != nil {
		return 0, err
	}
	detach := c.Bool("detach")
	caught := signals.Catch()
	defer caught.Stop()
	io, err := t.stdio(c, p.Terminal, detach)
	if err != nil {
		return 0, err
	}
	defer io.close()
	g, err := b.group()
	if err != nil {
		return 0, err
	}
	o := b.options()
	o.Group, o.IntoFrozen = g.Group, c.Bool("ignore-paused")
	if o.Below, err = below(c.StringSlice("cgroup")); err != nil {
		return 0, err
	}
	o.HoldIn = ""
	io.give(&o)
	t.log.debugf("exec in %s: %q", b.ID, p.Args)
	box, err := container.Exec(c.Context, spec, p, b.Process.Pid, pidfd, o)
	if err != nil {
		return 0, fmt.Errorf("exec in %s: %w", b.ID, err)
	}
	defer box.Close()
	err = io.connect(box.Console, p.ConsoleSize)
	if err == nil {
		err = io.identify(box)
	}
	if err == nil {
		err = writePidFile(c.String("pid-file"), box.Pid())
	}
	if err != nil {
		return 0, errors.Join(err, box.Kill())
	}
	if err := box.Start(c.Context); err != nil {
		return 0, fmt.Errorf("exec in %s: %w", b.ID, err)
	}
	started = true
	if detach {
		return 0, nil
	}
	caught.Forward(box, io.streams)
	status, err := box.Wait()
	caught.Stop()
	return status, errors.Join(err, io.finish())
}

// below reads the groups to join: of the controllers named before a colon, or
// of all.
func below(groups []string) (map[string]string, error) {
	all := make(map[string]string)
	for _, g := range groups {
		controllers, path, named := strings.Cut(g, ":")
		if !named {
			controllers, path = "", g
		}
		if slices.Contains(strings.Split(path, "/"), "..") {
			return nil, applet.Usagef("--cgroup: bad sub cgroup path %q: it must not climb out of the container's cgroup", path)
		}
		for c := range strings.SplitSeq(controllers, ",") {
			all[c] = path
		}
	}
	return all, nil
}

// execProcess is the process that the command line asks for.
func execProcess(c *cli.Context, spec *specs.Spec) (*specs.Process, error) {
	p := &specs.Process{}
	if path := c.String("process"); path != "" {
		return p, readJSON(c.Context, path, p)
	}
	if spec.Process == nil {
		return nil, fmt.Errorf("%w: it has no process whose user and environment could be taken: give a whole one with --process", container.ErrInvalid)
	}
	*p = *spec.Process
	p.Args, p.Terminal, p.ConsoleSize = c.Args().Tail(), c.Bool("tty"), nil
	p.Env = append(slices.Clone(p.Env), c.StringSlice("env")...)
	if cwd := c.String("cwd"); cwd != "" {
		p.Cwd = cwd
	}
	if c.IsSet("apparmor") {
		p.ApparmorProfile = c.String("apparmor")
	}
	if c.IsSet("process-label") {
		p.SelinuxLabel = c.String("process-label")
	}
	if c.IsSet("no-new-privs") {
		p.NoNewPrivileges = c.Bool("no-new-privs")
	}
	if names := c.StringSlice("cap"); len(names) > 0 {
		p.Capabilities = addCaps(p.Capabilities, names)
	}
	if user := c.String("user"); user != "" {
		if err := setUser(p, user); err != nil {
			return nil, err
		}
	}
	for _, gid := range c.Int64Slice("additional-gids") {
		id, err := parseID("additional-gids", strconv.FormatInt(gid, 10))
		if err != nil {
			return nil, err
		}
		p.User.AdditionalGids = append(p.User.AdditionalGids, id)
	}
	return p, nil
}

// addCaps adds capabilities to all sets but the inheritable one, and to the
// ambient one those that are inheritable already: the kernel wants that.
func addCaps(c *specs.LinuxCapabilities, names []string) *specs.LinuxCapabilities {
	sets := &specs.LinuxCapabilities{}
	if c != nil {
		*sets = *c
	}
	for _, set := range []*[]string{&sets.Bounding, &sets.Effective, &sets.Permitted} {
		*set = append(slices.Clone(*set), names...)
	}
	sets.Ambient = slices.Clone(sets.Ambient)
	for _, name := range names {
		if slices.Contains(sets.Inheritable, name) {
			sets.Ambient = append(sets.Ambient, name)
		}
	}
	return sets
}

// setUser takes UID[:GID]. Names are not looked up: what they mean is the
// image's word, and an engine has read it already.
func setUser(p *specs.Process, user string) (err error) {
	uid, gid, both := strings.Cut(user, ":")
	if p.User.UID, err = parseID("user", uid); err == nil && both {
		p.User.GID, err = parseID("user", gid)
	}
	return err
}

func parseID(flag, s string) (uint32, error) {
	// -1 means "leave alone" to the kernel.
	id, err := strconv.ParseUint(s, 10, 32)
	if err != nil || id == 1<<32-1 {
		return 0, applet.Usagef("--%s: %q is not the number of a user or group", flag, s)
	}
	return uint32(id), nil
}
