package run

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"shocker.sh/lib/applet"
	"shocker.sh/lib/passwd"
	"shocker.sh/lib/stage"
	"shocker.sh/shocker-run/internal/container"
	"shocker.sh/shocker-run/internal/signals"
	"shocker.sh/shocker-run/internal/stdio"
)

// ExecOptions describe a further program in a running container. What is left
// out is as the container's own program has it.
type ExecOptions struct {
	Args     []string
	Env      []string // NAME=VALUE, added to the container's
	Cwd      string
	User     string // USER[:GROUP], looked up in the container
	Terminal bool
	Detach   bool      // return once it runs; its output goes nowhere
	In       *os.File  // nil: /dev/null
	Out, Err io.Writer // nil: dropped
}

// Exec runs a program in a running container: in all its namespaces, its
// cgroup and its root, with its capabilities. It returns its exit status, and
// errors as Run does.
func Exec(ctx context.Context, host stage.Host, id string, o ExecOptions) (int, error) {
	pidfd, st, err := process(host, id)
	if err != nil {
		return applet.NotStarted, err
	}
	defer pidfd.Close()
	status, err := execIn(ctx, host, id, pidfd, st, o)
	if container.EndedUnder(err, pidfd) {
		return applet.NotStarted, notRunning(id)
	}
	return status, err
}

// execIn is Exec in the container of the process.
func execIn(ctx context.Context, host stage.Host, id string, pidfd *os.File, st *state, o ExecOptions) (int, error) {
	spec, err := specOf(host, id)
	if err != nil {
		return applet.NotStarted, err
	}
	p, err := execProcess(spec.Process, st.Process.Pid, o)
	if err != nil {
		return applet.NotStarted, fmt.Errorf("exec in %s: %w", id, err)
	}
	status, err := execute(ctx, host, spec, p, st, pidfd, o)
	if err != nil {
		err = fmt.Errorf("exec in %s: %w", id, err)
	}
	return status, err
}

// specOf is the config that the container runs with.
func specOf(host stage.Host, id string) (*specs.Spec, error) {
	st, err := openStore(host, id)
	if err != nil {
		return nil, err
	}
	if st == nil {
		return nil, fmt.Errorf("container %s has no place in the store: its config is not known", id)
	}
	r, err := st.Record(id)
	if err != nil {
		return nil, err
	}
	spec, err := r.Spec()
	if err == nil && spec.Process == nil {
		err = container.ErrInvalid
	}
	return spec, err
}

// execProcess is the process that is asked for.
func execProcess(own *specs.Process, pid int, o ExecOptions) (*specs.Process, error) {
	p := *own
	p.Args, p.Terminal, p.ConsoleSize = o.Args, o.Terminal, nil
	if o.Cwd != "" {
		p.Cwd = o.Cwd
	}
	p.Env = append([]string{}, own.Env...)
	if o.Terminal {
		setDefault(&p.Env, "TERM=xterm")
	}
	if o.User != "" {
		if err := becomeUser(&p, pid, o.User); err != nil {
			return nil, err
		}
	}
	for _, v := range o.Env {
		set(&p.Env, v)
	}
	return &p, nil
}

// becomeUser looks the user up in the container's own files, beneath its root.
func becomeUser(p *specs.Process, pid int, name string) error {
	// The process of our pidfd has that pid as long as it is there, and exec
	// fails later if it is not.
	root, err := os.Open(fmt.Sprintf("/proc/%d/root", pid))
	if err != nil {
		return err
	}
	defer root.Close()
	user, err := passwd.Lookup(root, name)
	if err != nil {
		return err
	}
	p.User = specs.User{UID: user.UID, GID: user.GID, AdditionalGids: user.Groups, Umask: p.User.Umask}
	set(&p.Env, "HOME="+user.Home)
	if c := p.Capabilities; c != nil {
		sets := &specs.LinuxCapabilities{Bounding: c.Bounding, Inheritable: c.Inheritable}
		if user.UID == 0 {
			sets.Effective, sets.Permitted = c.Bounding, c.Bounding
		}
		p.Capabilities = sets
	}
	return nil
}

// set puts a variable into an environment, in the place of one of that name.
func set(env *[]string, v string) {
	name, _, _ := strings.Cut(v, "=")
	for i, old := range *env {
		if strings.HasPrefix(old, name+"=") {
			(*env)[i] = v
			return
		}
	}
	*env = append(*env, v)
}

func setDefault(env *[]string, v string) {
	name, _, _ := strings.Cut(v, "=")
	for _, old := range *env {
		if strings.HasPrefix(old, name+"=") {
			return
		}
	}
	*env = append(*env, v)
}

func execute(ctx context.Context, host stage.Host, spec *specs.Spec, p *specs.Process, st *state, pidfd *os.File, o ExecOptions) (_ int, retErr error) {
	caught := signals.Catch()
	defer caught.Stop()
	so := stdio.Options{In: o.In, Out: o.Out, Err: o.Err, Terminal: o.Terminal}
	if o.Detach {
		so.In, so.Null = nil, !o.Terminal
	}
	streams, err := stdio.Open(so)
	if err != nil {
		return applet.NotStarted, err
	}
	g, err := groupOf(host, spec)
	if err != nil {
		return applet.NotStarted, errors.Join(err, streams.Close())
	}
	c, err := container.Exec(ctx, spec, p, st.Process.Pid, pidfd, container.Options{
		ID: st.ID, Bundle: st.Bundle, Group: g, Stdio: streams.Child, OwnStdio: streams.Chown,
	})
	if err != nil {
		return statusOf(err), errors.Join(err, streams.Close())
	}
	defer c.Close()
	err = streams.Start(c.Console)
	if err == nil {
		err = streams.Resize()
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return applet.NotStarted, errors.Join(err, c.Kill(), streams.Close())
	}
	if err := c.Start(ctx); err != nil {
		return statusOf(err), errors.Join(err, streams.Close())
	}
	if o.Detach {
		return 0, streams.Close()
	}
	caught.Forward(c, streams)
	status, err := c.Wait()
	caught.Stop()
	return status, errors.Join(err, streams.Finish())
}
