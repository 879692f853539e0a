package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/record"
	"shocker.sh/lib/sys"
	"shocker.sh/lib/undo"
)

// Ids are first drawn from this range, in any order, and then counted on.
const (
	firstID = 42002
	lastID  = 42254
)

// take calls try with one id after another until it does not return
// fs.ErrExist.
func take(prefix string, taken []string, try func(id string) error) (string, error) {
	used := make(map[int]bool, len(taken))
	top := lastID
	for _, id := range taken {
		if n, err := strconv.Atoi(strings.TrimPrefix(id, prefix)); err == nil {
			used[n] = true
			top = max(top, n)
		}
	}
	attempt := func(n int) (string, bool, error) {
		id := prefix + strconv.Itoa(n)
		err := try(id)
		return id, errors.Is(err, fs.ErrExist), err
	}
	for _, i := range rand.Perm(lastID - firstID + 1) {
		if used[firstID+i] {
			continue
		}
		if id, exists, err := attempt(firstID + i); !exists {
			return id, err
		}
	}
	for n := top + 1; ; n++ {
		if id, exists, err := attempt(n); !exists {
			return id, err
		}
	}
}

// IsContainerID says whether a name is such an id.
func IsContainerID(name string) bool {
	digits, ok := strings.CutPrefix(name, "ps_")
	return ok && digits != "" && strings.Trim(digits, "0123456789") == ""
}

// NewContainer takes an id: it calls try with one id that is not in use after
// another, until try returns something else than fs.ErrExist.
func (s *Store) NewContainer(try func(id string) error) (string, error) {
	taken, err := s.ContainerIDs()
	if err != nil {
		return "", err
	}
	return take("ps_", taken, try)
}

// PutContainer makes the container of a record exist, in one rename; an error
// that is fs.ErrExist means that its id is in use. Before that, undo is given
// the entry that takes it back.
func (s *Store) PutContainer(r *record.Record, undoFirst func(*undo.Entry) error) (retErr error) {
	temp, done, err := s.Temp("container")
	if err != nil {
		return err
	}
	defer func() { retErr = errors.Join(retErr, done()) }()
	dir := filepath.Join(temp, "container")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := sys.WriteFile(filepath.Join(dir, "config.json"), r.Line(), 0o600, false); err != nil {
		return err
	}
	state, err := json.Marshal(&State{Created: time.Now().UTC()})
	if err == nil {
		err = sys.WriteFile(filepath.Join(dir, "state.json"), append(state, '\n'), 0o600, false)
	}
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	path := s.Container(r.ID())
	entry := &undo.Entry{Stage: "shocker-spec", Class: undo.Rm, Op: undo.OpRemove, Path: path, Ino: st.Ino}
	if err := undoFirst(entry); err != nil {
		return err
	}
	if err := unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE); err != nil {
		return &os.LinkError{Op: "rename", Old: dir, New: path, Err: err}
	}
	return nil
}

// ContainerIDs lists the containers whatever their state.
func (s *Store) ContainerIDs() ([]string, error) {
	return s.list("containers")
}

// list returns the names of the directories there: all that the store puts
// there is one.
func (s *Store) list(dir string) ([]string, error) {
	entries, err := os.ReadDir(s.Path(dir))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// NameUndo is how the name of a container is given back.
func (s *Store) NameUndo(name, id string) *undo.Entry {
	return &undo.Entry{
		Stage: "shocker-spec", Class: undo.Rm, Op: undo.OpUnlink,
		Path: s.Path("names", name), Data: id,
	}
}

// CheckName refuses what cannot be the name of a container.
func CheckName(name string) error {
	if err := record.CheckID(name); err != nil {
		return fmt.Errorf("name: %w; want a letter or digit, then up to 127 more or any of _ - . +", err)
	}
	if strings.HasPrefix(name, "ps_") || strings.HasPrefix(name, "img_") {
		return fmt.Errorf("name: %w: %q looks like an id", record.ErrBadID, name)
	}
	return nil
}

// TakeName gives a container a name that CheckName lets pass, or returns
// ErrNameTaken. The undo is NameUndo.
func (s *Store) TakeName(name, id string) error {
	err := sys.Claim(s.Path("names", name), id)
	if errors.Is(err, fs.ErrExist) {
		other, _ := os.ReadFile(s.Path("names", name))
		return fmt.Errorf("%w: %q names %q; remove that one or take another, or see shocker gc if there is none", ErrNameTaken, name, other)
	}
	return err
}

// NoContainer is ErrNoContainer in the words that users know.
func NoContainer(called string) error {
	return &notExist{fmt.Sprintf("No container named '%s' exists", called), ErrNoContainer}
}

// FindContainer returns the id of the container that is called by its id or
// its name, or ErrNoContainer.
func (s *Store) FindContainer(called string) (string, error) {
	missing := NoContainer(called)
	if record.CheckID(called) != nil {
		return "", missing
	}
	id := called
	if data, err := os.ReadFile(s.Path("names", called)); err == nil {
		id = string(data)
	}
	// After a power cut a name can be an empty file, which would be the
	// directory of all containers.
	if record.CheckID(id) != nil {
		return "", missing
	}
	var st unix.Stat_t
	err := unix.Lstat(s.Container(id), &st)
	if errors.Is(err, unix.ENOENT) {
		return "", missing
	}
	if err != nil {
		return "", &os.PathError{Op: "lstat", Path: s.Container(id), Err: err}
	}
	return id, nil
}
