package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/spawn"
	"shocker.sh/lib/sys"
)

// runInside executes a hook in the namespaces and cgroups of the container's
// waiting process, and returns what it says. The path counts from the
// container's root if pivoted, else from the host's, which the mount namespace
// still shows. A program out of the container's root may be the image's: it gets
// no more than the container's own, its user, capabilities, labels and seccomp
// filter. One of the host's has all capabilities.
func (c *Container) runInside(ctx context.Context, h specs.Hook, state *specs.State, pivoted bool) (_ []byte, retErr error) {
	pidfd, err := c.proc.Pidfd()
	if err != nil {
		return nil, err
	}
	in, err := c.stateInside(state)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	p, err := c.cloneHook(h, pidfd, []any{in, w, w}, pivoted)
	w.Close()
	if err != nil {
		return nil, err
	}
	defer p.Close()
	out := make(chan []byte, 1)
	go func() {
		// The deadline below ends what somebody left behind holds open.
		data, _ := io.ReadAll(io.LimitReader(r, maxHookOutput))
		out <- data
		_, _ = io.Copy(io.Discard, r)
	}()
	err = c.waitHook(ctx, p)
	_ = r.SetReadDeadline(time.Now().Add(time.Second)) // a pipe takes one
	return <-out, err
}

// waitHook lets the hook run to its end, or kills it when ctx is done.
func (c *Container) waitHook(ctx context.Context, p *spawn.Process) error {
	err := p.Notified(ctx)
	if err == nil {
		err = c.joinGroup(p.Pid(), c.proc.Pid())
	}
	if err == nil {
		err = p.Release()
	}
	if err == nil {
		err = p.Started(ctx)
	}
	var pidfd *os.File
	if err == nil {
		pidfd, err = p.Pidfd()
	}
	if err != nil {
		return errors.Join(err, p.Kill())
	}
	stop := context.AfterFunc(ctx, func() {
		// It is not reaped before Wait below, so it is still the same.
		_ = unix.PidfdSendSignal(int(pidfd.Fd()), unix.SIGKILL, nil, 0)
	})
	status, err := p.Wait()
	if !stop() {
		return ctx.Err()
	}
	switch {
	case err == nil && status.Signaled():
		err = fmt.Errorf("signal: %s", status.Signal())
	case err == nil && status != 0:
		err = fmt.Errorf("exit status %d", exitStatus(status))
	}
	return err
}

// cloneHook writes the steps of a hook's process and starts it.
func (c *Container) cloneHook(h specs.Hook, target *os.File, files []any, pivoted bool) (*spawn.Process, error) {
	joins, err := otherNamespaces(c.proc.Pid())
	if err != nil {
		return nil, err
	}
	t, err := spawn.NewTable()
	if err != nil {
		return nil, err
	}
	b := &builder{Table: t}
	defer b.close()
	if err := b.enter(target, c.proc.Pid(), joins, pivoted); err != nil {
		t.Close()
		return nil, err
	}
	if !pivoted {
		b.Call("enter the root", unix.SYS_CHDIR, c.o.RootPath(c.spec))
	}
	if joins&unix.CLONE_NEWUSER != 0 {
		b.becomeRoot()
	}
	env := h.Env
	if pivoted {
		if env, err = c.wear(b, h, joins&unix.CLONE_NEWUSER != 0, files); err != nil {
			t.Close()
			return nil, err
		}
	} else {
		if env == nil {
			env = os.Environ() // as in runOutside
		}
		b.Descriptors(0, files...)
		b.CloseFrom(3)
	}
	args := h.Args
	if len(args) == 0 {
		args = []string{h.Path}
	}
	b.Exec(h.Path, args, env)
	p, err := t.Start(spawn.Options{Shed: true}) // as in cloneExec
	if err != nil {
		t.Close()
	}
	return p, err
}

// wear makes a hook's process what the container's is, and returns its
// environment: the program's, if it has none of its own.
func (c *Container) wear(b *builder, h specs.Hook, userns bool, files []any) ([]string, error) {
	p := c.spec.Process
	if c.setup == nil { // the container was created by another command
		c.setup = &setup{}
		if err := c.capabilities(userns); err != nil {
			return nil, err
		}
		if err := c.compileSeccomp(); err != nil {
			return nil, err
		}
	}
	if err := b.labels(p); err != nil {
		return nil, err
	}
	b.Descriptors(0, files...)
	b.CloseFrom(3)
	if !p.NoNewPrivileges {
		c.loadForHook(b)
	}
	b.identity(p, c.setup.caps, c.setup.last)
	if p.NoNewPrivileges {
		c.loadForHook(b)
	}
	if h.Env != nil {
		return h.Env, nil
	}
	env, needsHome := environment(p.Env)
	if needsHome {
		home, err := c.homeOf(c.proc.Pid())
		if err != nil {
			return nil, err
		}
		env = append(env, "HOME="+home)
	}
	return env, nil
}

// enter joins the namespaces of a process of the container, and its root if
// those do not bring it along, and lets the parent put the new one into the
// cgroups.
func (b *builder) enter(target *os.File, pid, joins int, root bool) error {
	if joins != 0 {
		b.Call("join the container's namespaces", unix.SYS_SETNS, target, joins)
	}
	b.Clone("clone the process", 0)
	b.Notify("tell that the namespaces are joined")
	b.Wait("wait for the parent")
	if root && joins&unix.CLONE_NEWNS == 0 {
		dir, err := os.Open("/proc/" + strconv.Itoa(pid) + "/root")
		if err != nil {
			return err
		}
		b.own = append(b.own, dir)
		b.Call("enter the container's root", unix.SYS_FCHDIR, dir)
		b.Call("change to the container's root", unix.SYS_CHROOT, ".")
	}
	// What was read by its number was the container's process's, if that is not
	// reaped yet. The number may be another's, and our program would run among
	// that one's.
	if err := unix.PidfdSendSignal(int(target.Fd()), 0, nil, 0); err != nil {
		return fmt.Errorf("%w: %w", ErrGone, os.NewSyscallError("pidfd_send_signal", err))
	}
	return nil
}

// stateInside is a file with the state as it is seen in the container, where
// the process may have another pid.
func (c *Container) stateInside(state *specs.State) (*os.File, error) {
	inside := *state
	pid, err := pidInside(state.Pid)
	if err != nil {
		return nil, err
	}
	inside.Pid = pid
	data, err := json.Marshal(inside)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("state", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "state")
	_, err = f.Write(data)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// pidInside is the pid of a process in its own pid namespace (proc_pid_status(5),
// NSpid).
func pidInside(pid int) (int, error) {
	path := "/proc/" + strconv.Itoa(pid) + "/status"
	data, err := sys.ReadKernel(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if list, ok := strings.CutPrefix(line, "NSpid:"); ok {
			all := strings.Fields(list)
			return strconv.Atoi(all[len(all)-1])
		}
	}
	return 0, fmt.Errorf("%s has no NSpid", path)
}
