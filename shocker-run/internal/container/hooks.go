package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
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

// createHooks are those of the runtime's namespace between the namespaces and
// pivot_root. One that fails ends the container.
func (c *Container) createHooks(ctx context.Context, _ int) error {
	if err := c.hooks(ctx, "prestart", specs.StateCreating); err != nil {
		return err
	}
	return c.hooks(ctx, "createRuntime", specs.StateCreating)
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
	for _, h := range list {
		if c.o.SkipHook != nil && c.o.SkipHook(h) {
			continue
		}
		err := runHook(ctx, h, c.State(status))
		if err == nil {
			continue
		}
		err = fmt.Errorf("hook %s: %w", when, err)
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
		"prestart":      h.Prestart, //nolint:staticcheck // deprecated, and still in use
		"createRuntime": h.CreateRuntime,
		"poststart":     h.Poststart,
		"poststop":      h.Poststop,
	}
}

// runHook executes a hook with the state on its stdin.
func runHook(ctx context.Context, h specs.Hook, state *specs.State) error {
	if !filepath.IsAbs(h.Path) {
		return fmt.Errorf("%w: path %q: want an absolute path", ErrInvalid, h.Path)
	}
	if h.Timeout != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(*h.Timeout)*time.Second)
		defer cancel()
	}
	in, err := json.Marshal(state)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, h.Path)
	if len(h.Args) > 0 {
		cmd.Args = h.Args
	}
	cmd.Env = append([]string{}, h.Env...) // not nil: nothing of ours
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &out
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	if ctxErr := ctx.Err(); errors.Is(ctxErr, context.DeadlineExceeded) {
		err = fmt.Errorf("no end within %d s: %w", *h.Timeout, ctxErr)
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", h.Path, err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}
