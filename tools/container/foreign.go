package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"shocker.sh/lib/applet"
	"shocker.sh/lib/container"
	"shocker.sh/lib/record"
	"shocker.sh/lib/stage"
	"shocker.sh/lib/store"
	"shocker.sh/lib/undo"
)

// line is a record as JSON without the newline.
func line(r *record.Record) json.RawMessage { return bytes.TrimSpace(r.Line()) }

// foreign executes another's stage with a record on its stdin and returns
// what it writes to stdout.
func foreign(ctx context.Context, io applet.IO, in []byte, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Args[0] = filepath.Base(program)
	cmd.Stdin = bytes.NewReader(in)
	cmd.Stderr = io.Err
	out, err := cmd.Output()
	if ctx.Err() != nil || cmd.ProcessState != nil && interrupted(cmd.ProcessState) {
		err = context.Canceled // Ctrl-C ends it before or after us
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", program, err)
	}
	return out, nil
}

func interrupted(p *os.ProcessState) bool {
	ws, ok := p.Sys().(syscall.WaitStatus)
	return ok && ws.Signaled() && ws.Signal() == syscall.SIGINT
}

// foreignLast executes another's last stage as the printed pipeline does: the
// record on its stdin, our stdin as descriptor 3. Its exit status is taken for
// the program's; with -d, for whether it could be started.
func (p *Pipeline) foreignLast(c *cli.Context, host stage.Host, st *store.Store, program string, log *undo.Log, r *record.Record, started func() error) error {
	entry := &undo.Entry{
		Stage: p.Last.Name, Class: undo.Exit, Op: undo.OpDown,
		Args: []string{program, stage.Down}, Record: line(r),
	}
	if err := log.Push(entry); err != nil {
		return err
	}
	if err := st.PutRecord(r); err != nil {
		return err
	}
	state, err := st.State(r.ID())
	if err != nil {
		return err
	}
	cmd, err := p.lastCommand(c, program, r)
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	state.Started, state.Remove = time.Now().UTC(), c.Bool("rm")
	if c.Bool("detach") {
		code, err := exitStatus(cmd)
		if err == nil && code != 0 {
			err = &applet.ExitError{Code: code}
		}
		if err != nil {
			return err
		}
		return errors.Join(st.PutState(r.ID(), state), started())
	}
	err = errors.Join(st.PutState(r.ID(), state), started())
	code, waitErr := exitStatus(cmd)
	err = errors.Join(err, waitErr)
	if state.Remove {
		// The program may have done so, as it has to in a pasted pipeline.
		err = errors.Join(err, container.Remove(host, st, r.ID()))
	} else {
		state.Finished, state.ExitStatus = time.Now().UTC(), &code
		err = errors.Join(err, st.PutState(r.ID(), state), log.Replay("", undo.Exit))
	}
	if err == nil && code != 0 {
		err = &applet.ExitError{Code: code}
	}
	return err
}

// lastCommand is the command line of another's last stage.
func (p *Pipeline) lastCommand(c *cli.Context, program string, r *record.Record) (*exec.Cmd, error) {
	args, err := render(c, p.Last.Flags)
	if err != nil {
		return nil, err
	}
	io := applet.Streams(c)
	cmd := exec.CommandContext(c.Context, program, append([]string{"--record", "-", "--stdin", "3"}, args...)...)
	cmd.Args[0] = filepath.Base(program)
	cmd.Stdin = bytes.NewReader(r.Line())
	cmd.Stdout, cmd.Stderr = io.Out, io.Err
	cmd.ExtraFiles = []*os.File{io.In}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	return cmd, nil
}

// exitStatus waits for a command and returns its status as the shell counts.
func exitStatus(cmd *exec.Cmd) (int, error) {
	err := cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = nil
	}
	code := cmd.ProcessState.ExitCode()
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		code = 128 + int(ws.Signal())
	}
	return code, err
}
