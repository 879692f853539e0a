package run

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/cgroup/group"
	libcontainer "shocker.sh/lib/container"
	"shocker.sh/lib/record"
	"shocker.sh/lib/stage"
	"shocker.sh/lib/store"
	"shocker.sh/lib/undo"
	"shocker.sh/shocker-run/internal/container"
	"shocker.sh/shocker-run/internal/logs"
	"shocker.sh/shocker-run/internal/signals"
	"shocker.sh/shocker-run/internal/stdio"
)

// Options of a run.
type Options struct {
	In       *os.File  // the program's stdin; nil: /dev/null
	Held     bool      // without In: stdin stays open all the same
	Out, Err io.Writer // beside the log; nil: only the log
	Remove   bool      // remove the container once its program has ended
	// Started is called once the program runs, or has failed to by its own
	// fault. Who gives it removes the container if it is not called.
	Started func() error
	// Event is told how the run goes on; see Event.
	Event func(Event)
}

// Event is one line of --status-fd.
type Event struct {
	ID     string `json:"id"`
	Status string `json:"status"` // running, exited, failed
	Pid    int    `json:"pid,omitempty"`
	// ExitStatus of exited and failed, as the shell counts.
	ExitStatus *int   `json:"exitStatus,omitempty"`
	Error      string `json:"error,omitempty"`
}

// session is one run of a container.
type session struct {
	host    stage.Host
	r       *record.Record
	o       Options
	spec    *specs.Spec
	store   *store.Store // nil: the container has no place in it
	runDir  string
	lock    *os.File
	log     *logs.Writer
	streams *stdio.Streams
	c       *container.Container
	began   *store.State
}

// Run runs the program of a record to its end, and returns its exit status. An
// error comes with the status 125 if Shocker failed before the program ran,
// 126 or 127 if the program could not be executed or was not found, or with
// the program's own if only the cleaning up failed, or if it was killed for
// want of memory (ErrOutOfMemory).
func Run(ctx context.Context, host stage.Host, r *record.Record, o Options) (status int, retErr error) {
	s := &session{host: host, r: r, o: o}
	status, retErr = s.run(ctx)
	if o.Event != nil {
		e := Event{ID: r.ID(), Status: "exited", ExitStatus: &status}
		if retErr != nil {
			e.Error = retErr.Error()
		}
		if retErr != nil && !errors.Is(retErr, ErrOutOfMemory) {
			e.Status = "failed"
		}
		o.Event(e)
	}
	return status, retErr
}

func (s *session) run(ctx context.Context) (int, error) {
	defer func() {
		if s.lock != nil {
			s.lock.Close() // whoever waits for the end reads the state now
		}
	}()
	caught := signals.Catch()
	defer caught.Stop()
	err := s.start(ctx)
	if err != nil {
		return s.failed(err)
	}
	defer s.c.Close()
	if s.o.Event != nil {
		s.o.Event(Event{ID: s.r.ID(), Status: "running", Pid: s.c.Pid()})
	}
	caught.Forward(s.c, s.streams)
	status, err := s.c.Wait()
	caught.Stop()
	err = errors.Join(err, s.streams.Finish(), s.end(status))
	if err == nil && s.began.OOMKilled && status == 128+int(unix.SIGKILL) {
		err = ErrOutOfMemory
	}
	return status, err
}

// start prepares everything and executes the program.
func (s *session) start(ctx context.Context) (retErr error) {
	var err error
	if s.spec, err = s.r.Spec(); err != nil {
		return err
	}
	if s.runDir, err = s.host.MakeRun(s.r.ID()); err != nil {
		return err
	}
	if s.lock, err = lockSupervisor(s.runDir); err != nil {
		return err
	}
	if s.store, err = openStore(s.host, s.r.ID()); err != nil {
		return err
	}
	s.began = &store.State{}
	bundle := s.runDir
	if s.store != nil {
		bundle = s.store.Container(s.r.ID())
		if s.began, err = s.store.State(s.r.ID()); err != nil {
			return err
		}
		if err := s.store.PutRecord(s.r); err != nil {
			return err
		}
		if s.log, err = logs.Create(s.store.Log(s.r.ID())); err != nil {
			return err
		}
	}
	if err := hasRoot(s.spec, bundle); err != nil {
		return err
	}
	terminal := s.spec.Process != nil && s.spec.Process.Terminal
	s.streams, err = stdio.Open(stdio.Options{
		In: s.o.In, Held: s.o.Held, Out: s.o.Out, Err: s.o.Err, Log: s.log, Terminal: terminal,
	})
	if err != nil {
		return err
	}
	g, err := groupOf(s.host, s.spec)
	if err != nil {
		return err
	}
	s.c, err = container.Create(ctx, s.spec, container.Options{
		ID: s.r.ID(), Bundle: bundle, Group: g,
		Stdio: s.streams.Child, OwnStdio: s.streams.Chown,
		MapRoot: true, OpenNet: true, SkipHook: isOurHook(s.host, s.r),
	})
	if err != nil {
		return err
	}
	if err := s.writeState(specs.StateCreated); err != nil {
		return errors.Join(err, s.c.Kill())
	}
	if err := s.streams.Start(s.c.Console); err != nil {
		return errors.Join(err, s.c.Kill())
	}
	if err := errors.Join(s.initialSize(), ctx.Err()); err != nil {
		return errors.Join(err, s.c.Kill())
	}
	if err := s.c.Start(ctx); err != nil {
		return err
	}
	return s.started()
}

// hasRoot says ErrNoRoot if no stage has made the root; what is wrong with a
// root otherwise is told when it is opened.
func hasRoot(spec *specs.Spec, bundle string) error {
	if spec.Root == nil {
		return nil
	}
	path := spec.Root.Path
	if !filepath.IsAbs(path) {
		path = filepath.Join(bundle, path)
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("root %s: %w", path, ErrNoRoot)
	}
	return nil
}

// groupOf is the cgroup that another stage has made; nil if the record names
// none.
func groupOf(host stage.Host, spec *specs.Spec) (*group.Group, error) {
	if spec.Linux == nil || spec.Linux.CgroupsPath == "" {
		return nil, nil
	}
	return group.New(host.CgroupRoot, spec.Linux.CgroupsPath)
}

// started writes down that the program runs.
func (s *session) started() error {
	s.began.Started, s.began.Finished, s.began.ExitStatus = time.Now().UTC(), time.Time{}, nil
	s.began.OOMKilled, s.began.Remove = false, s.o.Remove
	err := s.writeState(specs.StateRunning)
	if s.store != nil {
		err = errors.Join(err, s.store.PutState(s.r.ID(), s.began))
	}
	if s.o.Started != nil {
		err = errors.Join(err, s.o.Started())
	}
	if err != nil {
		err = errors.Join(err, s.c.Kill())
	}
	return err
}

func (s *session) writeState(status specs.ContainerState) error {
	st := s.c.State(status)
	return writeState(s.runDir, &state{*st, s.c.Identity})
}

// failed cleans up after a program that did not come to run. One that could
// not be executed leaves a container as if it had ended with that status.
func (s *session) failed(err error) (int, error) {
	status := statusOf(err)
	if s.streams != nil {
		err = errors.Join(err, s.streams.Close())
	}
	own := status != 125
	if own {
		if s.o.Started != nil {
			err = errors.Join(err, s.o.Started())
		}
		s.began.Started, s.began.Remove = time.Now().UTC(), s.o.Remove
		err = errors.Join(err, s.end(status))
	} else {
		if s.log != nil {
			err = errors.Join(err, s.log.Close())
		}
		if s.c != nil {
			err = errors.Join(err, s.c.Stopped(context.Background()))
		}
		if s.o.Started == nil && s.runDir != "" && !errors.Is(err, ErrSupervised) {
			err = errors.Join(err, s.remove())
		}
	}
	if s.c != nil {
		s.c.Close()
	}
	return status, err
}

// end writes down how the program ended, and undoes what is undone then.
func (s *session) end(status int) error {
	var errs []error
	if s.log != nil {
		errs = append(errs, s.log.Close())
	}
	s.began.Finished, s.began.ExitStatus = time.Now().UTC(), &status
	if s.c != nil {
		s.began.OOMKilled = s.c.OOMKills() > 0
	}
	if s.store != nil {
		errs = append(errs, s.store.PutState(s.r.ID(), s.began))
	}
	if s.c != nil {
		errs = append(errs, s.c.Stopped(context.Background()))
	}
	if s.o.Remove {
		errs = append(errs, s.remove())
	} else {
		errs = append(errs, undo.Open(s.runDir).Replay("", undo.Exit))
	}
	return errors.Join(errs...)
}

// remove removes the container with all that its stages have made.
func (s *session) remove() error {
	if s.store != nil {
		return libcontainer.Remove(s.host, s.store, s.r.ID())
	}
	if err := undo.Open(s.runDir).Replay(""); err != nil {
		return fmt.Errorf("remove %s: %w", s.r.ID(), err)
	}
	return s.host.RemoveRun(s.r.ID())
}

// initialSize gives the program's terminal the size of the caller's, or the
// one that the config asks for.
func (s *session) initialSize() error {
	if s.c.Console == nil {
		return nil
	}
	if size := s.spec.Process.ConsoleSize; size != nil {
		if err := s.streams.SetSize(uint16(size.Height), uint16(size.Width)); err != nil {
			return err
		}
	}
	return s.streams.Resize()
}
