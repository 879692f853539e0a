package run

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/applet"
	"shocker.sh/lib/record"
	"shocker.sh/lib/stage"
	"shocker.sh/lib/undo"
)

// Detach starts a container under a supervisor of its own, a process in a
// session of its own that writes the log, waits for the program, writes down
// its exit status and undoes what is undone then. It returns once the program
// runs. On error the status is as of Run, and the container is removed as by
// Run.
func Detach(ctx context.Context, host stage.Host, r *record.Record, o Options) (int, error) {
	status, err := detach(ctx, host, r, o)
	if err != nil && status == applet.NotStarted && o.Started == nil {
		err = errors.Join(err, discard(host, r))
	}
	return status, err
}

func detach(ctx context.Context, host stage.Host, r *record.Record, o Options) (int, error) {
	records, feed, err := os.Pipe()
	if err != nil {
		return applet.NotStarted, err
	}
	defer records.Close()
	defer feed.Close()
	events, tell, err := os.Pipe()
	if err != nil {
		return applet.NotStarted, err
	}
	defer events.Close()
	defer tell.Close()

	args := []string{Name, "--supervise", "--record", "3", "--status-fd", "4"}
	if o.Remove {
		args = append(args, "--rm")
	}
	if o.Held {
		args = append(args, "--interactive")
	}
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", // ours, whatever has replaced the file meanwhile
		Args: args, Dir: "/", Env: environ(host),
		ExtraFiles:  []*os.File{records, tell},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	// What we were started with is not the supervisor's: somebody may wait
	// for the end of a pipe.
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return applet.NotStarted, os.NewSyscallError("close_range", err)
	}
	if err := cmd.Start(); err != nil {
		return applet.NotStarted, fmt.Errorf("start the supervisor: %w", err)
	}
	tell.Close()
	records.Close()
	if _, err := feed.Write(r.Line()); err != nil {
		return applet.NotStarted, errors.Join(fmt.Errorf("hand the record to the supervisor: %w", err), cmd.Wait())
	}
	feed.Close()
	stop := context.AfterFunc(ctx, func() {
		// It stops what it has begun. If the program runs by now, it goes on.
		_ = cmd.Process.Signal(syscall.SIGTERM)
	})
	defer stop()
	var e Event
	err = json.NewDecoder(events).Decode(&e)
	if errors.Is(err, io.EOF) {
		return applet.NotStarted, errors.Join(errors.New("the supervisor died"), cmd.Wait())
	}
	if err != nil {
		return applet.NotStarted, fmt.Errorf("the supervisor says: %w", err)
	}
	status := 0
	if e.ExitStatus != nil {
		status = *e.ExitStatus
	}
	own := status == applet.NotFound || status == applet.NotExecutable
	if o.Event != nil {
		o.Event(e)
	}
	if o.Started != nil && (e.Status != "failed" || own) {
		if err := o.Started(); err != nil {
			return applet.NotStarted, err
		}
	}
	if e.Status == "failed" {
		return status, errors.New(e.Error)
	}
	return 0, cmd.Process.Release()
}

// environ is the environment of a supervisor: where things are on this host.
func environ(host stage.Host) []string {
	env := []string{
		"SHOCKER_ROOT=" + host.Store, "SHOCKER_RUN=" + host.Run, "SHOCKER_CGROUP=" + host.CgroupParent,
		"SHOCKER_SUBNET=" + host.Subnet, "SHOCKER_BRIDGE=" + host.Bridge, "SHOCKER_PATH=" + host.Path,
	}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "SHOCKER_") {
			env = append(env, v)
		}
	}
	return env
}

// supervise is the process that Detach starts.
func supervise(ctx context.Context, host stage.Host, in io.ReadCloser, o Options) error {
	data, err := io.ReadAll(io.LimitReader(in, record.MaxSize+1))
	if err != nil {
		return err
	}
	in.Close()
	r, err := record.Parse(bytes.TrimSpace(data))
	if err != nil {
		return err
	}
	busy, err := undo.Open(host.RunDir(r.ID())).Begin("supervisor")
	if err != nil {
		return err
	}
	tell := o.Event
	o.Event = func(e Event) {
		if e.Status == "exited" {
			return // nobody listens any more
		}
		_ = busy.Done() // a mark that stays is taken for a dead command's
		tell(e)
		debug.FreeOSMemory() // it may wait for months
	}
	// Who started us removes the container if its program was not reached.
	o.Started = func() error { return nil }
	return exit(Run(ctx, host, r, o))
}
