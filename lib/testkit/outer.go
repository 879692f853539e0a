package testkit

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
	"testing"
	"time"
)

// host, seen from outside.
type outer struct {
	config
}

// prepare makes what outlives the inner processes, each with its removal.
func prepare(t *testing.T, o Options) (*outer, error) {
	// Without links: it will be found below another root.
	tmp, err := filepath.EvalSymlinks(os.TempDir())
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(tmp, "shocker-test-")
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	// The root user of a container walks through, and reads nothing.
	if err := os.Chmod(dir, 0o711); err != nil {
		return nil, err
	}
	for _, sub := range []string{"tmp", "store", "private"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o711); err != nil {
			return nil, err
		}
	}
	if !o.NoStore {
		if o.StoreSize == 0 {
			o.StoreSize = 4 << 30
		}
		if err := makeBtrfs(filepath.Join(dir, storeImage), o.StoreSize); err != nil {
			return nil, err
		}
	}
	groups, err := makeCgroups()
	t.Cleanup(func() {
		if err := removeCgroups(groups); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		return nil, err
	}
	return &outer{config{Test: t.Name(), Dir: dir, Args: innerArgs(t.Name()), Cgroups: groups, Options: o}}, nil
}

// run starts PID 1 of the host and waits for its end. It returns what the
// test wrote, in the form of test2json's input.
func (o *outer) run(t *testing.T) ([]byte, error) {
	ctx := context.Background()
	if end, ok := t.Deadline(); ok {
		// Before the deadline kills us, so that its output is seen.
		c, cancel := context.WithDeadlineCause(ctx, end.Add(-time.Until(end)/20), errors.New("the time limit of go test is near"))
		defer cancel()
		ctx = c
	}
	o.Stage = stageInit
	env, err := o.env()
	if err != nil {
		return nil, err
	}
	wait, ready, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer wait.Close()
	defer ready.Close()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "/proc/self/exe", o.Args...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = env
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.ExtraFiles = []*os.File{wait}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the test host: %w", err)
	}
	if o.Outside {
		stop, err := startSlirp(cmd.Process.Pid)
		if err != nil {
			return nil, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
		}
		defer stop()
	}
	// Closing says: go. Init reads the end of the pipe.
	if err := ready.Close(); err != nil {
		return nil, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	err = cmd.Wait()
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = fmt.Errorf("%w, and the test was stopped", cause)
	}
	return out.Bytes(), err
}

// env is the environment of the process of c.Stage.
func (c config) env() ([]string, error) {
	text, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	return append(os.Environ(), stageEnv+"="+string(text)), nil
}
