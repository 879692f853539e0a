package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/spawn"
	"shocker.sh/lib/sys"
	"shocker.sh/shocker-run/internal/seccomp"
)

// compileSeccomp makes a program of the config's seccomp profile.
func (c *Container) compileSeccomp() (err error) {
	c.setup.filter, err = seccomp.Compile(c.spec.Linux.Seccomp, seccomp.Native())
	switch {
	case errors.Is(err, seccomp.ErrUnsupported):
		return fmt.Errorf("%w: linux.seccomp: %w", ErrUnsupported, err)
	case err != nil:
		return fmt.Errorf("%w: linux.seccomp: %w", ErrInvalid, err)
	}
	return nil
}

// When a filter is loaded. Without no_new_privs that takes CAP_SYS_ADMIN, so it
// comes before privileges go, and the profile has to allow all that follows:
// capset(2), setresuid(2), read(2) ... With it, nothing follows but execve(2).
// A filter with an agent is loaded before the container is created: who creates
// it learns whether the agent is there.
const (
	loadEarly = iota
	loadToCreate
	loadLast
)

// load adds the loading of the filter, if this is the moment. An agent's
// process learns of it so:
//
//	parent                               child                       agent
//	              ◀────────────────────  "about to load"
//	look at the step's result
//	in the table, until it is there      seccomp(2)
//	pidfd_getfd ── the descriptor, and whose it is ───────────────▶
//	              ─────────────────────▶ read(2), close(2)        ── may I? ▶
//
// From seccomp(2) on any call of the child's may wait for the agent, so that
// none may be needed before the agent has the descriptor.
func (c *Container) load(b *builder, when int) {
	f, moment := c.setup.filter, loadLast
	switch {
	case f == nil:
		return
	case !c.spec.Process.NoNewPrivileges:
		moment = loadEarly
	case f.Listens():
		moment = loadToCreate
	}
	if when != moment {
		return
	}
	if f.Listens() {
		b.Notify("tell that the seccomp filter is about to be loaded")
	}
	step := b.filter(f, f.Flags)
	if f.Listens() {
		c.listener = step
		b.Wait("wait for the seccomp agent to be told")
		// If it were kept, calls would wait for an agent that has gone.
		b.Call("close the seccomp listener", unix.SYS_CLOSE, step).IgnoreAny()
	}
}

// loadForHook adds the loading of the filter for a hook. It has no agent: what
// the agent would be asked for answers ENOSYS.
func (c *Container) loadForHook(b *builder) {
	if f := c.setup.filter; f != nil {
		b.filter(f, f.Flags&^(unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV))
	}
}

func (b *builder) filter(f *seccomp.Filter, flags uint) *spawn.Step {
	program := struct { // struct sock_fprog
		length uint16
		filter uintptr
	}{
		length: uint16(len(f.Program)),
		filter: uintptr(b.Bytes(unsafe.Slice((*byte)(unsafe.Pointer(&f.Program[0])), uintptr(len(f.Program))*unsafe.Sizeof(f.Program[0])))),
	}
	return b.Call("load the seccomp filter", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, spawn.Struct(b.Table, &program))
}

// tellAgent gives the agent the descriptor by which it hears of the child's
// system calls, with the state of the process (runtime-spec, config-linux.md,
// "The Container Process State").
func (c *Container) tellAgent(ctx context.Context) error {
	if err := c.proc.Notified(ctx); err != nil {
		return err
	}
	pidfd, err := c.proc.Pidfd()
	if err != nil {
		return err
	}
	gone := false
	for c.listener.Result() == 0 && !gone {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}, 1)
		if err != nil && err != unix.EINTR {
			return os.NewSyscallError("poll", err)
		}
		gone = n > 0
	}
	if c.listener.Result() <= 0 {
		return c.proc.Notified(ctx) // says which step failed
	}
	fd, err := c.proc.File(c.listener, "seccomp listener")
	if err != nil {
		return err
	}
	defer fd.Close()
	profile := c.spec.Linux.Seccomp
	state := c.State(specs.StateCreating)
	if c.first != 0 {
		state.Status, state.Pid = specs.StateRunning, c.first
	}
	text, err := json.Marshal(&specs.ContainerProcessState{
		Version:  specs.Version,
		Fds:      []string{specs.SeccompFdName},
		Pid:      c.proc.Pid(),
		Metadata: profile.ListenerMetadata,
		State:    *state,
	})
	if err != nil {
		return err
	}
	if err := sendListener(profile.ListenerPath, text, fd); err != nil {
		return err
	}
	return c.proc.Release()
}

// agentPatience is how long an agent may take to accept what it is sent.
const agentPatience = 10 * time.Second

// sendListener sends a text with a descriptor over a connection of its own to the
// socket of an agent.
func sendListener(path string, text []byte, f *os.File) error {
	fd, err := sys.Connect(unix.SOCK_STREAM, path, agentPatience)
	if err != nil {
		return fmt.Errorf("failed to connect with seccomp agent: %w", err) // as in runc
	}
	defer unix.Close(fd)
	rights := unix.UnixRights(int(f.Fd()))
	for len(text) > 0 {
		var n int
		err := sys.Retry(func() (err error) {
			n, err = unix.SendmsgN(fd, text, rights, nil, unix.MSG_NOSIGNAL)
			return err
		})
		if err != nil {
			return fmt.Errorf("tell the seccomp agent at %s: %w", path, err)
		}
		text, rights = text[n:], nil
	}
	return nil
}
