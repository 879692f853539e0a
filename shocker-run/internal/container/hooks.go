package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// State is the container's state as hooks get it and `state` prints it (OCI
// runtime-spec, runtime.md, "State").
func (c *Container) State(status specs.ContainerState) *specs.State {
	state := &specs.State{
		Version:     specs.Version,
		ID:          c.o.ID,
		Status:      status,
		Bundle:      c.o.Bundle,
		Annotations: c.spec.Annotations,
	}
	if status != specs.StateStopped && c.proc != nil {
		state.Pid = c.proc.Pid()
	}
	return state
}

// createHooks runs the hooks of the time between the mounts and pivot_root, for
// which the process waits. One that fails ends the container.
func (c *Container) createHooks(ctx context.Context) error {
	if !c.hasCreateHooks() {
		return nil
	}
	if err := c.proc.Notified(ctx); err != nil {
		return c.explain(err)
	}
	for _, when := range []string{"prestart", "createRuntime", "createContainer"} {
		if err := c.hooks(ctx, when, specs.StateCreating); err != nil {
			return err
		}
	}
	return c.proc.Release()
}

func (c *Container) hasCreateHooks() bool {
	h := c.spec.Hooks
	return h != nil && len(h.Prestart)+len(h.CreateRuntime)+len(h.CreateContainer) > 0 //nolint:staticcheck // deprecated, and still in use
}

// Stopped runs the hooks poststop. One that fails is told, the others run all
// the same.
func (c *Container) Stopped(ctx context.Context) error {
	return c.hooks(ctx, "poststop", specs.StateStopped)
}

func (c *Container) hooks(ctx context.Context, when string, status specs.ContainerState) error {
	if c.spec.Hooks == nil {
		return nil
	}
	list := hooksOf(c.spec.Hooks)[when]
	var errs []error
	for i, h := range list {
		if c.o.SkipHook != nil && c.o.SkipHook(h) {
			continue
		}
		err := c.hook(ctx, when, h, c.State(status))
		if err == nil {
			continue
		}
		err = fmt.Errorf("error running %s hook #%d: %w", when, i, err)
		if when != "poststop" {
			return err
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// hooksOf are the hooks of a config by their moment.
func hooksOf(h *specs.Hooks) map[string][]specs.Hook {
	return map[string][]specs.Hook{
		"prestart":        h.Prestart, //nolint:staticcheck // deprecated, and still in use
		"createRuntime":   h.CreateRuntime,
		"createContainer": h.CreateContainer,
		"startContainer":  h.StartContainer,
		"poststart":       h.Poststart,
		"poststop":        h.Poststop,
	}
}

// hook executes one hook in the namespaces that are right for it.
func (c *Container) hook(ctx context.Context, when string, h specs.Hook, state *specs.State) error {
	if h.Timeout != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(*h.Timeout)*time.Second)
		defer cancel()
	}
	var out []byte
	var err error
	if when == "createContainer" || when == "startContainer" {
		out, err = c.runInside(ctx, h, state, when == "startContainer")
	} else {
		out, err = runOutside(ctx, h, state, c.o.Bundle)
	}
	switch ctxErr := ctx.Err(); {
	case errors.Is(ctxErr, context.DeadlineExceeded) && h.Timeout != nil:
		err = fmt.Errorf("no end within %d s: %w", *h.Timeout, ctxErr)
	case errors.Is(ctxErr, context.Canceled) && err != nil:
		err = ctxErr // it was we who killed it
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", h.Path, err)
	}
	if out = bytes.TrimSpace(out); err != nil && len(out) > 0 {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return err
}

// runOutside executes a hook in our own namespaces, with the state on its
// stdin, and returns what it says.
func runOutside(ctx context.Context, h specs.Hook, state *specs.State, dir string) ([]byte, error) {
	in, err := json.Marshal(state)
	if err != nil {
		return nil, err
	}
	var out firstBytes
	cmd := exec.CommandContext(ctx, h.Path)
	if len(h.Args) > 0 {
		cmd.Args = h.Args
	}
	cmd.Dir = dir
	cmd.Env = h.Env // nil: what we were given, as hooks know it from other runtimes
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &out
	cmd.WaitDelay = time.Second
	// Nobody waits for it any more when we are killed. The kernel means the
	// thread that has started it (prctl(2)).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	err = cmd.Run()
	return out, err
}

// maxHookOutput is how much of what a hook says is kept, in bytes.
const maxHookOutput = 64 << 10

// firstBytes keeps the first maxHookOutput bytes of what is written to it.
type firstBytes []byte

func (b *firstBytes) Write(p []byte) (int, error) {
	*b = append(*b, p[:min(len(p), maxHookOutput-len(*b))]...)
	return len(p), nil
}

// maxTimeout is the longest time that a hook can be given, in seconds: 292 years.
const maxTimeout = math.MaxInt64 / int64(time.Second)

// checkHooks refuses hooks that cannot be.
func checkHooks(hooks *specs.Hooks) error {
	if hooks == nil {
		return nil
	}
	for _, list := range [][]specs.Hook{
		hooks.Prestart, //nolint:staticcheck // deprecated, and still in use
		hooks.CreateRuntime, hooks.CreateContainer, hooks.StartContainer, hooks.Poststart, hooks.Poststop,
	} {
		for _, h := range list {
			if !filepath.IsAbs(h.Path) {
				return fmt.Errorf("%w: path %q of a hook: want an absolute path", ErrInvalid, h.Path)
			}
			if h.Timeout != nil && (*h.Timeout <= 0 || int64(*h.Timeout) > maxTimeout) {
				return fmt.Errorf("%w: timeout %d of hook %s: want 1 to %d seconds", ErrInvalid, *h.Timeout, h.Path, maxTimeout)
			}
			for _, s := range append(append([]string{h.Path}, h.Args...), h.Env...) {
				if strings.ContainsRune(s, 0) {
					return fmt.Errorf("%w: hook %q holds a NUL byte", ErrInvalid, h.Path)
				}
			}
		}
	}
	return nil
}
