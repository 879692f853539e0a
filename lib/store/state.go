package store

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"time"

	"shocker.sh/lib/record"
	"shocker.sh/lib/sys"
)

// State is what is written down of a container's life (state.json). Whether
// it runs now is not among it: that is asked of the kernel.
type State struct {
	Created    time.Time `json:"created"`
	Started    time.Time `json:"started,omitzero"`
	Finished   time.Time `json:"finished,omitzero"`
	ExitStatus *int      `json:"exitStatus,omitempty"` // as the shell counts: 128 + signal
	OOMKilled  bool      `json:"oomKilled,omitempty"`
	Remove     bool      `json:"remove,omitempty"` // run with --rm
}

// State reads a container's state; one that was never written is zero.
func (s *Store) State(id string) (*State, error) {
	state := &State{}
	data, err := os.ReadFile(s.Path("containers", id, "state.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return state, nil
	}
	if err == nil {
		err = json.Unmarshal(data, state)
	}
	return state, err
}

// PutState replaces a container's state.
func (s *Store) PutState(id string, state *State) error {
	data, err := json.Marshal(state)
	if err != nil {
		return err
	}
	return sys.WriteFile(s.Path("containers", id, "state.json"), append(data, '\n'), 0o600, false)
}

// Record reads a container's record as its last stage saw it, or as its first
// one made it if it never came to the last.
func (s *Store) Record(id string) (*record.Record, error) {
	data, err := os.ReadFile(s.Path("containers", id, "config.json"))
	if err != nil {
		return nil, err
	}
	return record.Parse(data)
}

// PutRecord replaces a container's record.
func (s *Store) PutRecord(r *record.Record) error {
	return sys.WriteFile(s.Path("containers", r.ID(), "config.json"), r.Line(), 0o600, false)
}

// Log is the container's log, in the CRI log format.
func (s *Store) Log(id string) string { return s.Path("containers", id, "log") }
