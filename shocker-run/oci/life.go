package oci

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/applet"
	"shocker.sh/lib/cgroup"
	"shocker.sh/lib/cgroup/devices"
	"shocker.sh/lib/spawn"
	"shocker.sh/lib/sys"
	"shocker.sh/lib/undo"
	"shocker.sh/shocker-run/internal/container"
	"shocker.sh/shocker-run/internal/signals"
	"shocker.sh/shocker-run/internal/systemd"
)

// createFlags are those of create and run.
var createFlags = []cli.Flag{
	&cli.StringFlag{Name: "bundle", Aliases: []string{"b"}, Usage: "`DIR` of config.json (default: here)"},
	&cli.StringFlag{Name: "console-socket", Usage: "send the terminal's master to the unix socket at `PATH`"},
	&cli.StringFlag{Name: "pid-file", Usage: "write the pid of the container's process to `FILE`"},
	&cli.StringFlag{Name: "pidfd-socket", Usage: "send a pidfd of the container's process to the unix socket at `PATH`"},
	&cli.IntFlag{Name: "preserve-fds", Usage: "pass on `N` descriptors from 3 up"},
	&cli.BoolFlag{Name: "no-pivot", Usage: "change the root by chroot, where pivot_root cannot be (on a ramdisk)"},
	&cli.BoolFlag{Name: "no-new-keyring", Usage: "leave the program in the caller's session keyring"},
}

// lifeCommands are those of a container's life, in its order.
func (t *tool) lifeCommands() []*cli.Command {
	return []*cli.Command{
		{
			Name: "create", Usage: "create a container; its program waits for start", ArgsUsage: "ID", Flags: createFlags,
			Action: func(c *cli.Context) error {
				if err := arguments(c, 1, 1); err != nil {
					return err
				}
				n, err := t.create(c, true)
				if err != nil {
					return err
				}
				return n.lock.Close()
			},
		},
		t.verb("start", "let the program of a created container run", nil, t.start),
		{
			Name: "run", Usage: "create a container, start it and wait for its end", ArgsUsage: "ID",
			Flags: append([]cli.Flag{
				&cli.BoolFlag{Name: "detach", Aliases: []string{"d"}, Usage: "do not wait for its end"},
				&cli.BoolFlag{Name: "keep", Usage: "leave the container to delete after its end"},
				&cli.BoolFlag{Name: "no-subreaper", Hidden: true},
			}, createFlags...),
			Action: func(c *cli.Context) error {
				if err := arguments(c, 1, 1); err != nil {
					return err
				}
				return t.run(c)
			},
		},
		{
			Name: "kill", Usage: "send the container's process a signal (default: TERM)", ArgsUsage: "ID [SIGNAL]",
			Flags: []cli.Flag{
				&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "send it to all processes of the container"},
			},
			Action: func(c *cli.Context) error {
				if err := arguments(c, 1, 2); err != nil {
					return err
				}
				b, err := t.open(c.Args().First())
				if err != nil {
					return err
				}
				return b.kill(c.Context, c.Args().Get(1), c.Bool("all"))
			},
		},
		{
			Name: "delete", Usage: "delete a container that has stopped", ArgsUsage: "ID",
			Flags: []cli.Flag{&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "kill it if it runs; no error if there is none"}},
			Action: func(c *cli.Context) error {
				if err := arguments(c, 1, 1); err != nil {
					return err
				}
				return t.delete(c.Context, c.Args().First(), c.Bool("force"))
			},
		},
	}
}

// creation is a container while it is created.
type creation struct {
	*box
	lock  *os.File // see box.seize; the caller closes it
	c     *container.Container
	spec  *specs.Spec
	joins *cgroup.Cgroup
	io    *stdio
}

// create makes the container that the command line asks for. With hold its
// program waits for a start by another command.
func (t *tool) create(c *cli.Context, hold bool) (_ *creation, retErr error) {
	id := c.Args().First()
	if err := checkID(id); err != nil {
		return nil, err
	}
	bundle, err := filepath.Abs(c.String("bundle"))
	if err != nil {
		return nil, err
	}
	spec, text, err := bundleSpec(bundle)
	if err != nil {
		return nil, err
	}
	// Others than its root have to see what is made for the container: its
	// cgroup, directories of devices.
	unix.Umask(0o022)
	terminal := spec.Process != nil && spec.Process.Terminal
	n := &creation{spec: spec}
	if n.io, err = t.stdio(c, terminal, hold || c.Bool("detach")); err != nil {
		return nil, err
	}
	defer func() {
		if retErr != nil {
			n.io.close()
		}
	}()
	if n.box, n.lock, err = t.newBox(c.Context, id, bundle); err != nil {
		return nil, err
	}
	defer func() {
		if retErr != nil {
			retErr = errors.Join(retErr, n.discard(), n.lock.Close())
		}
	}()
	t.log.debugf("create %s of %s", id, bundle)
	if err := n.announce(); err != nil {
		return nil, err
	}
	if err := n.makeGroup(c.Context); err != nil {
		return nil, err
	}
	o := n.options()
	if !hold {
		o.HoldIn = ""
	}
	o.NoKeyring, o.NoPivot = c.Bool("no-new-keyring"), c.Bool("no-pivot")
	if n.joins != nil {
		o.Group = n.joins.Group
		defer func() { retErr = errors.Join(retErr, n.joins.Release()) }()
	}
	n.io.give(&o)
	if n.c, err = container.Create(c.Context, spec, o); err != nil {
		return nil, fmt.Errorf("create %s: %w", id, err)
	}
	defer func() {
		if retErr != nil {
			retErr = errors.Join(retErr, n.c.Kill(), n.c.Stopped(context.Background()))
			n.c.Close()
		}
	}()
	if terminal {
		if err := n.io.connect(n.c.Console, spec.Process.ConsoleSize); err != nil {
			return nil, err
		}
	}
	if err := n.io.identify(n.c); err != nil {
		return nil, err
	}
	n.Process = n.c.Identity
	if n.Cgroup, err = n.joins.Save(); err != nil {
		return nil, err
	}
	err = errors.Join(n.saveSpec(text), n.save())
	if err == nil {
		err = writePidFile(c.String("pid-file"), n.c.Pid())
	}
	return n, err
}

// makeGroup makes and limits the container's cgroup.
func (n *creation) makeGroup(ctx context.Context) error {
	linux := n.spec.Linux
	if linux == nil {
		return nil // refused later, in better words
	}
	c := cgroup.Config{
		Root: n.tool.cgroupRoot, CgroupsPath: linux.CgroupsPath, ID: n.ID, Annotations: n.spec.Annotations,
	}
	if n.tool.systemdCgroup {
		if err := systemd.Running(); err != nil {
			return err
		}
		c.Manager = systemd.Manager{}
	}
	g, err := cgroup.New(c)
	if err != nil {
		return err
	}
	if linux.Resources == nil {
		linux.Resources = &specs.LinuxResources{}
	}
	linux.Resources.Devices = append(linux.Resources.Devices, devices.Default()...)
	n.joins = g
	n.dropVersion1(g.Group, linux.Resources)
	return g.Make(ctx, undo.Open(n.dir), linux.Resources)
}

func writePidFile(path string, pid int) error {
	if path == "" {
		return nil
	}
	// A file is replaced. /dev/null would be, for all of the host.
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("write the pid file: %s is a device, a pipe or a directory, which is not replaced: want a file", path)
	}
	// An engine that waits for the file must not read half of it, and nobody can
	// lay a link in its way.
	if err := sys.WriteFile(path, fmt.Append(nil, pid), 0o644, false); err != nil {
		return fmt.Errorf("write the pid file: %w", err)
	}
	return nil
}

// start lets a created container go on. If a service manager asks for it, it
// waits until that is ready; whoever deletes it meanwhile does not wait for us.
func (t *tool) start(c *cli.Context, b *box) error {
	box, ready, err := b.letGo(c.Context)
	if err != nil {
		return err
	}
	defer box.Close()
	defer ready.close()
	return ready.await(c.Context, box, t.log.warn)
}

// letGo starts a created container. The caller closes what it returns.
func (b *box) letGo(ctx context.Context) (_ *container.Container, _ *readiness, retErr error) {
	lock, err := b.lock(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer lock.Close()
	status, pidfd, err := b.status()
	if err != nil {
		return nil, nil, err
	}
	switch status {
	case specs.StateCreated:
	case specs.StateStopped:
		return nil, nil, ErrStopped
	case paused:
		return nil, nil, errors.Join(ErrStartPaused, pidfd.Close())
	default:
		return nil, nil, errors.Join(ErrStarted, pidfd.Close())
	}
	spec, err := b.spec()
	if err != nil {
		return nil, nil, errors.Join(err, pidfd.Close())
	}
	o := b.options()
	g, err := b.group()
	if err != nil {
		return nil, nil, errors.Join(err, pidfd.Close())
	}
	o.Group = g.Group
	box, err := container.Reopen(spec, o, b.Process, pidfd)
	if errors.Is(err, spawn.ErrNotHeld) {
		err = ErrStopped
	}
	if err != nil {
		return nil, nil, errors.Join(err, pidfd.Close())
	}
	defer func() {
		if retErr != nil {
			box.Close()
		}
	}()
	if spec.Process == nil { // it ends, as after every start that fails
		return nil, nil, errors.Join(ErrNoProcess, box.Kill())
	}
	ready, err := b.listen()
	if err != nil {
		return nil, nil, fmt.Errorf("start %s: %w", b.ID, err)
	}
	defer func() {
		if retErr != nil {
			ready.close()
		}
	}()
	defer func() { retErr = errors.Join(retErr, spawn.Unhold(b.dir)) }()
	b.tool.log.debugf("start %s", b.ID)
	if err := box.Start(ctx); err != nil {
		return nil, nil, fmt.Errorf("start %s: %w", b.ID, err)
	}
	return box, ready, nil
}

// run is create, start, and unless --detach the wait for the end.
func (t *tool) run(c *cli.Context) (retErr error) {
	caught := signals.Catch()
	defer caught.Stop()
	n, err := t.create(c, false)
	if err != nil {
		return err
	}
	defer n.c.Close()
	defer n.lock.Close()
	keep := c.Bool("keep")
	ready, err := n.listen()
	if err == nil {
		defer ready.close()
		err = n.c.Start(c.Context)
	}
	if err != nil {
		err = errors.Join(fmt.Errorf("start %s: %w", n.ID, err), n.c.Kill())
		n.io.close()
		return errors.Join(err, n.end(n.c.Stopped))
	}
	if err := sys.Flock(n.lock, unix.LOCK_UN); err != nil {
		return err
	}
	if c.Bool("detach") {
		n.io.close()
		return ready.await(c.Context, n.c, t.log.warn)
	}
	caught.Forward(n.c, n.io.streams)
	var idle sync.WaitGroup
	if ready != nil {
		idle.Go(func() {
			// We are the service's main process; a signal is meant for the program.
			if _, err := ready.relay(context.WithoutCancel(c.Context), n.c, os.Getpid()); err != nil {
				t.log.warn(err.Error())
			}
		})
	}
	status, err := n.c.Wait()
	idle.Wait()
	caught.Stop()
	err = errors.Join(err, n.io.finish())
	if !keep {
		switch lockErr := n.seizeBy(context.Background(), n.lock); {
		case lockErr == nil:
			err = errors.Join(err, n.end(n.c.Stopped))
		case !errors.Is(lockErr, ErrNotExist): // else somebody has deleted it
			err = errors.Join(err, lockErr)
		}
	}
	if err == nil && status == 0 {
		return nil
	}
	if status == 0 {
		status = applet.Failed
	}
	return &applet.ExitError{Code: status, Err: err}
}

// end deletes a container whose process has ended.
func (b *box) end(stopped func(context.Context) error) error {
	if err := b.discard(); err != nil {
		return err
	}
	if err := stopped(context.Background()); err != nil {
		b.tool.log.warn(err.Error()) // the container is gone all the same
	}
	return nil
}

// delete removes a container that has stopped, or with force any, in whatever
// state it is.
func (t *tool) delete(ctx context.Context, id string, force bool) error {
	b, err := t.at(id, false)
	if err == nil {
		err = b.there()
	}
	if err == nil {
		err = b.ours()
	}
	var lock *os.File
	if err == nil {
		lock, err = b.seize(ctx)
	}
	if force && (errors.Is(err, ErrNotExist) || errors.Is(err, fs.ErrNotExist)) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	err = b.load()
	if force && (errors.Is(err, ErrNotExist) || errors.Is(err, ErrDamaged)) {
		// A create was killed before it knew more, or somebody else has written
		// to it: the undo log has the processes' cgroup.
		err = nil
	}
	if err != nil {
		return err
	}
	status, pidfd, err := b.status()
	if err != nil {
		return err
	}
	if pidfd != nil {
		defer pidfd.Close()
		if !force && status != specs.StateCreated {
			return fmt.Errorf("cannot delete container %s that is not stopped: %s", id, status)
		}
	}
	spec, err := b.spec()
	if err != nil && force {
		if !errors.Is(err, fs.ErrNotExist) {
			t.log.warn(fmt.Sprintf("delete %s without its hooks: %v", id, err))
		}
		spec, err = &specs.Spec{}, nil
	}
	if err != nil {
		return err
	}
	if pidfd != nil {
		if err := b.killProcess(ctx, pidfd); err != nil {
			return err
		}
	}
	t.log.debugf("delete %s", id)
	return b.end(container.Ended(spec, b.options()).Stopped)
}

// killTimeout limits how long a killed process may take to end.
const killTimeout = 10 * time.Second

// killProcess kills the container's process and waits for its end.
func (b *box) killProcess(ctx context.Context, pidfd *os.File) error {
	if err := unix.PidfdSendSignal(int(pidfd.Fd()), unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill %s: %w", b.ID, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, killTimeout, fmt.Errorf(
		"%s: process %d was killed and has not ended: is a cgroup above the container's frozen, or its disk stuck?", b.ID, b.Process.Pid))
	defer cancel()
	if err := b.letDie(ctx, pidfd); err != nil {
		return err
	}
	return spawn.WaitEnd(ctx, pidfd)
}
