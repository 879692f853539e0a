// Package undo is Shocker's write-ahead undo.
//
// Before a stage takes an effect it writes down, in the run dir of its
// container, how that effect is taken back. Whoever finds the entry later,
// `down`, the poststop hook, `rm` or `gc`, can then do so, whatever became of
// the stage. Entries name what they undo by an identity that is not used
// again, so that nobody else's thing of the same name is touched, and what is
// gone already counts as undone.
//
//	RUN/ID/undo/000001-shocker-subvol-subvolume.rm   one entry a file, JSON
//	RUN/ID/busy/shocker-net                          locked while that command works
package undo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"shocker.sh/lib/sys"
)

// The classes of entries: what goes when the program has ended, and what
// stays until the container is removed.
const (
	Exit = "exit"
	Rm   = "rm"
)

// Entry says how one effect is undone. Which of the identity fields count
// depends on Op; an empty one is not compared.
type Entry struct {
	Stage string `json:"stage"` // who took the effect: "shocker-net"
	Class string `json:"class"` // Exit or Rm
	Op    string `json:"op"`    // one of the operations in ops.go

	Path  string `json:"path,omitempty"`
	Dev   uint64 `json:"dev,omitempty"`   // st_dev of what is at Path
	Ino   uint64 `json:"ino,omitempty"`   // st_ino of what is at Path
	Data  string `json:"data,omitempty"`  // content of the file at Path
	UUID  string `json:"uuid,omitempty"`  // of a subvolume
	Name  string `json:"name,omitempty"`  // of a network interface or a unit
	Index int    `json:"index,omitempty"` // of a network interface
	Dirs  []Dir  `json:"dirs,omitempty"`  // of a cgroup

	Args   []string        `json:"args,omitempty"`   // a foreign stage's command line
	Record json.RawMessage `json:"record,omitempty"` // what its `down` reads

	file string // once it is written
}

// Dir is a cgroup directory.
type Dir struct {
	Path string `json:"path"`
	Ino  uint64 `json:"ino,omitempty"`
}

// Log is the undo log of one container.
type Log struct {
	runDir string
	mu     sync.Mutex // numbers are taken one at a time
}

// Open returns the log in the given run dir. Nothing is created.
func Open(runDir string) *Log { return &Log{runDir: runDir} }

func (l *Log) dir() string { return filepath.Join(l.runDir, "undo") }

// Lost says whether there is no log: nothing was ever made, somebody removed
// the run dir, or the machine was restarted.
func (l *Log) Lost() (bool, error) {
	_, err := os.Lstat(l.dir())
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return false, err
}

// Push writes an entry; the effect may be taken once it has returned.
func (l *Log) Push(e *Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := os.MkdirAll(l.dir(), 0o700); err != nil {
		return fmt.Errorf("write undo: %w", err)
	}
	names, err := l.names()
	if err != nil {
		return err
	}
	next := 1
	if n := len(names); n > 0 {
		last, _, _ := strings.Cut(names[n-1], "-")
		if next, err = strconv.Atoi(last); err != nil {
			return fmt.Errorf("undo entry %s: %w", names[n-1], err)
		}
		next++
	}
	e.file = filepath.Join(l.dir(), fmt.Sprintf("%06d-%s-%s.%s", next, e.Stage, e.Op, e.Class))
	return l.write(e)
}

// Update writes an entry again after its identity has become known.
func (l *Log) Update(e *Entry) error { return l.write(e) }

func (l *Log) write(e *Entry) error {
	data, err := json.Marshal(e)
	if err == nil {
		err = sys.WriteFile(e.file, data, 0o600, false)
	}
	if err != nil {
		return fmt.Errorf("write undo: %w", err)
	}
	return nil
}

// Drop takes an entry away without undoing anything.
func (l *Log) Drop(e *Entry) error {
	if err := os.Remove(e.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Undo undoes one entry, and then drops it. An Up that fails undoes what it
// did itself in this way; Replay would also take what an earlier one did.
func (l *Log) Undo(e *Entry) error {
	if err := e.run(); err != nil {
		return fmt.Errorf("undo %s of %s: %w", e.Op, e.Stage, err)
	}
	return l.Drop(e)
}

// Entries lists what is to undo, oldest first. A log that is not there is
// empty.
func (l *Log) Entries() ([]*Entry, error) {
	names, err := l.names()
	if err != nil {
		return nil, err
	}
	var entries []*Entry
	for _, name := range names {
		file := filepath.Join(l.dir(), name)
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // somebody else has just undone it
		}
		if err != nil {
			return nil, err
		}
		e := &Entry{file: file}
		if err := json.Unmarshal(data, e); err != nil {
			return nil, fmt.Errorf("undo entry %s: %w", file, err)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// Pending says whether entries of a class are left. It reads names only.
func (l *Log) Pending(class string) (bool, error) {
	names, err := l.names()
	return slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix(n, "."+class) }), err
}

// names lists the entries' files in their order. Temporary files, of a
// command that was killed before its effect, are none.
func (l *Log) names() ([]string, error) {
	dir, err := os.ReadDir(l.dir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read undo: %w", err)
	}
	var names []string
	for _, d := range dir {
		if !strings.HasPrefix(d.Name(), ".") {
			names = append(names, d.Name())
		}
	}
	return names, nil
}

// Replay undoes, newest first, the entries of the given classes (none: all)
// and of the given stage ("": all). An entry goes when its operation is done;
// one that fails stays, the others are tried all the same. A stage's own are
// those of our program: what runs another's in its place is for who replays
// all, since that program may have ours do a part of its work.
func (l *Log) Replay(stage string, classes ...string) error {
	entries, err := l.Entries()
	if err != nil {
		return err
	}
	slices.Reverse(entries)
	var errs []error
	for _, e := range entries {
		if stage != "" && (e.Stage != stage || e.Op == OpDown) || len(classes) > 0 && !slices.Contains(classes, e.Class) {
			continue
		}
		if err := l.Undo(e); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
