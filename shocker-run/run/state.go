package run

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	libcontainer "shocker.sh/lib/container"
	"shocker.sh/lib/record"
	"shocker.sh/lib/spawn"
	"shocker.sh/lib/stage"
	"shocker.sh/lib/store"
	"shocker.sh/lib/sys"
)

// state is RUN/ID/state.json: what OCI calls the state, and the process by
// what is not used again. The status is as it was when it was written.
type state struct {
	specs.State
	Process spawn.Identity `json:"process"`
}

func writeState(runDir string, s *state) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return sys.WriteFile(filepath.Join(runDir, "state.json"), append(data, '\n'), 0o600, false)
}

// readState returns fs.ErrNotExist if the container was never started, or is
// not there.
func readState(host stage.Host, id string) (*state, error) {
	data, err := os.ReadFile(filepath.Join(host.RunDir(id), "state.json"))
	if err != nil {
		return nil, err
	}
	s := &state{}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("state of %s: %w", id, err)
	}
	return s, nil
}

// notRunning is what cannot be done in a container whose program has ended,.
func notRunning(id string) error {
	return fmt.Errorf("Container '%s' exists but %w", id, ErrNotRunning) //nolint:staticcheck // the words users know
}

// process opens a container's first process, or returns ErrNotRunning.
func process(host stage.Host, id string) (*os.File, *state, error) {
	s, err := readState(host, id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, notRunning(id)
	}
	if err != nil {
		return nil, nil, err
	}
	pidfd, err := s.Process.Open()
	if errors.Is(err, spawn.ErrGone) {
		return nil, nil, notRunning(id)
	}
	if err != nil {
		return nil, nil, err
	}
	return pidfd, s, nil
}

// lockSupervisor takes the lock that is held as long as somebody waits for the
// program.
func lockSupervisor(runDir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(runDir, libcontainer.SupervisorLock), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := sys.Flock(f, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(err, f.Close())
		}
		// Who only looks whether there is a supervisor shares the lock, and
		// gives it up at once.
		if err := sys.Flock(f, unix.LOCK_SH|unix.LOCK_NB); err != nil {
			return nil, errors.Join(ErrSupervised, f.Close())
		}
	}
}

// openStore returns the store if it holds the container, else nil: a record
// by hand need not have a place there. None is made.
func openStore(host stage.Host, id string) (*store.Store, error) {
	_, err := os.Stat(filepath.Join(host.Store, "containers", id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return store.Open(host.Store, func(string) {})
}

// isOurHook says whether a hook poststop is the one that shocker-spec puts
// into every record: it replays the undo of class exit, as we do ourselves.
func isOurHook(host stage.Host, r *record.Record) func(specs.Hook) bool {
	return func(h specs.Hook) bool {
		return len(h.Args) == 3 && h.Args[0] == "shocker-spec" && h.Args[1] == "poststop" && h.Args[2] == host.RunDir(r.ID())
	}
}
