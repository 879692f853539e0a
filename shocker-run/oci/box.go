package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/applet"
	"shocker.sh/lib/cgroup"
	"shocker.sh/lib/spawn"
	"shocker.sh/lib/sys"
	"shocker.sh/lib/undo"
	"shocker.sh/shocker-run/internal/container"
	"shocker.sh/shocker-run/internal/systemd"
)

// box is one container: what is kept of it.
type box struct {
	tool *tool
	dir  string
	kept
}

// kept is state.json.
type kept struct {
	ID      string         `json:"id"`
	Bundle  string         `json:"bundle"`
	Created time.Time      `json:"created"`
	Process spawn.Identity `json:"process"`
	// Cgroup is the container's group in every hierarchy.
	Cgroup cgroup.Saved `json:"cgroup"`
}

// maxID is how many bytes an id has at most: it names a directory.
const maxID = 255

// checkID takes what runc takes.
func checkID(id string) error {
	other := strings.ContainsFunc(id, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && !strings.ContainsRune("_+.-", r)
	})
	switch {
	case len(id) > maxID:
		return fmt.Errorf("%w: %.20q... has %d characters: %d at most are taken", ErrInvalidID, id, len(id), maxID)
	case len(id) == 0 || other:
		return fmt.Errorf("%w: %q: letters, digits and _ + . - are taken", ErrInvalidID, id)
	case id == "." || id == "..":
		return fmt.Errorf("%w: %q means a directory", ErrInvalidID, id)
	}
	return nil
}

// findRoot follows the links of --root, and says whether it is there. It refuses
// one in which another user could put what we would take for containers, or in
// whose place another directory: what it says to undo we would undo.
func (t *tool) findRoot() (there bool, err error) {
	if t.found {
		return true, nil
	}
	if t.root == "" {
		return false, applet.Usagef("--root is empty: want a directory")
	}
	path, err := filepath.Abs(t.root)
	if err != nil {
		return false, err
	}
	real, err := filepath.EvalSymlinks(path)
	if there = err == nil; errors.Is(err, fs.ErrNotExist) {
		// It is made when it is needed, or that fails.
		for real = path; errors.Is(err, fs.ErrNotExist) && real != "/"; _, err = os.Lstat(real) {
			real = filepath.Dir(real)
		}
		if err == nil {
			real, err = filepath.EvalSymlinks(real)
		}
	}
	if err != nil {
		return false, fmt.Errorf("--root: %w", err)
	}
	for dir, at := real, there; ; dir, at = filepath.Dir(dir), false {
		if err := checkRoot(t.root, dir, at); err != nil {
			return false, err
		}
		if dir == "/" {
			break
		}
	}
	if there {
		t.root, t.found = real, true
	}
	return there, nil
}

// checkRoot checks a directory on the way to --root, which it is itself if at. Of
// one further up that is sticky, as /tmp is, nobody else can rename what is ours.
func checkRoot(root, dir string, at bool) error {
	st, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	switch owner := st.Sys().(*syscall.Stat_t).Uid; {
	case !st.IsDir():
		return nil // nothing can be found there, or made
	case owner != uint32(os.Geteuid()) && (at || owner != 0):
		return fmt.Errorf("%w: --root %s: %s belongs to user %d", ErrUnsafeRoot, root, dir, owner)
	case st.Mode().Perm()&0o022 != 0 && (at || st.Mode()&fs.ModeSticky == 0):
		return fmt.Errorf("%w: --root %s: %s can be written by others: chmod go-w it", ErrUnsafeRoot, root, dir)
	}
	return nil
}

// at is where the container of an id is; with create also where it can be.
func (t *tool) at(id string, create bool) (*box, error) {
	b := &box{tool: t, kept: kept{ID: id}}
	if err := checkID(id); err != nil {
		return b, err
	}
	there, err := t.findRoot()
	if err == nil && create && !there {
		if err = os.MkdirAll(t.root, 0o700); err == nil {
			_, err = t.findRoot() // somebody else may have made it
		}
	}
	if err == nil && !create && !there {
		err = fmt.Errorf("%s: %w", id, ErrNotExist)
	}
	b.dir = filepath.Join(t.root, id)
	return b, err
}

// newBox takes an id, and locks what it is to be: a delete --force waits until
// all is made or undone, and takes what a killed create leaves. On error of a
// later step the caller discards it.
func (t *tool) newBox(ctx context.Context, id, bundle string) (*box, *os.File, error) {
	b, err := t.at(id, true)
	if err != nil {
		return nil, nil, err
	}
	err = os.Mkdir(b.dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil, nil, fmt.Errorf("%s: %w", id, ErrExists)
	}
	if err != nil {
		return nil, nil, err
	}
	lock, err := b.seize(ctx)
	if err != nil {
		_ = os.Remove(b.dir) // of a full file system; it stays if it is another's by now
		return nil, nil, err
	}
	// A delete --force and another create may have come between.
	if files, err := os.ReadDir(b.dir); err != nil || len(files) > 1 {
		return nil, nil, errors.Join(fmt.Errorf("%s: %w", id, ErrExists), err, lock.Close())
	}
	b.Bundle, b.Created = bundle, time.Now().UTC()
	return b, lock, nil
}

// open reads what is kept of a container.
func (t *tool) open(id string) (*box, error) {
	b, err := t.at(id, false)
	if err == nil {
		err = b.load()
	}
	return b, err
}

// load reads state.json. A container whose create was killed has none yet, and
// counts as not there, but to delete --force.
func (b *box) load() error {
	if err := b.there(); err != nil {
		return err
	}
	data, err := os.ReadFile(b.path("state.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", b.ID, ErrNotExist)
	}
	if err != nil {
		return err
	}
	k := kept{}
	if err := json.Unmarshal(data, &k); err != nil {
		return fmt.Errorf("%s: %w: %w", b.path("state.json"), ErrDamaged, err)
	}
	if k.ID != b.ID {
		return fmt.Errorf("%s: %w: it tells of a container %q", b.path("state.json"), ErrDamaged, k.ID)
	}
	b.kept = k
	return nil
}

// there says that the container has a directory. A link or a file that
// somebody has put below --root is none of ours.
func (b *box) there() error {
	st, err := os.Lstat(b.dir)
	if err == nil && !st.IsDir() || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return fmt.Errorf("%s: %w", b.ID, ErrNotExist)
	}
	return err
}

// ownNames are all that a container's directory holds; see the package's comment.
var ownNames = []string{"config.json", "lock", "state.json", "undo", "notify", "table", "hold", "status"}

// ours says that nothing in the container's directory is somebody else's: with
// a wrong --root it may be anything, and delete removes it.
func (b *box) ours() error {
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		return err
	}
	if st, err := os.Lstat(b.dir); len(entries) == 0 && (err != nil || st.Mode().Perm()&0o077 != 0) {
		return errors.Join(fmt.Errorf("%s: %w: it is empty, and others may enter it", b.dir, ErrForeign), err)
	}
	for _, e := range entries {
		if !slices.Contains(ownNames, e.Name()) && !strings.HasPrefix(e.Name(), sys.NewPrefix) {
			return fmt.Errorf("%s: %w: there is %q", b.dir, ErrForeign, e.Name())
		}
	}
	return nil
}

func (b *box) path(name string) string { return filepath.Join(b.dir, name) }

func (b *box) save() error {
	data, err := json.Marshal(b.kept)
	if err != nil {
		return err
	}
	return sys.WriteFile(b.path("state.json"), append(data, '\n'), 0o600, false)
}

// saveSpec writes down the config with which the container was created: its
// bundle may hold another one by and by.
func (b *box) saveSpec(text []byte) error {
	return sys.WriteFile(b.path("config.json"), text, 0o600, false)
}

func (b *box) spec() (*specs.Spec, error) {
	spec, _, err := readSpec(b.path("config.json"))
	return spec, err
}

// discard undoes all that was done for the container, and forgets it.
func (b *box) discard() error {
	g, err := b.group()
	if err == nil && b.Cgroup.Unit != nil {
		// systemd would give what is left in it time to end.
		err = errors.Join(g.Kill(context.Background()), g.Stop(context.Background()))
	}
	if err != nil {
		return fmt.Errorf("delete %s: %w", b.ID, err)
	}
	if err := undo.Open(b.dir).Replay(""); err != nil {
		return fmt.Errorf("delete %s: %w", b.ID, err)
	}
	// Where there is a state, all that goes with it is there too.
	if err := os.Remove(b.path("state.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(b.dir)
}

// lock keeps others from changing the container until the file is closed. What
// is kept of it is read again.
func (b *box) lock(ctx context.Context) (*os.File, error) {
	f, err := b.seize(ctx)
	if err != nil {
		return nil, err
	}
	if err := b.load(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// seize locks a container whose state need not be there, or in order.
func (b *box) seize(ctx context.Context) (*os.File, error) {
	if err := b.there(); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(b.path("lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", b.ID, ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	if err := b.seizeBy(ctx, f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// seizeBy locks the container whose open lock f is, and no later one of the
// same id.
func (b *box) seizeBy(ctx context.Context, f *os.File) error {
	for {
		err := sys.Flock(f, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select { // a create may wait long for its hooks; who waits for it can be told to stop
		case <-ctx.Done():
			return fmt.Errorf("wait for another command on %s: %w", b.ID, context.Cause(ctx))
		case <-time.After(2 * time.Millisecond):
		}
	}
	ours, err := f.Stat()
	if err != nil {
		return err
	}
	now, err := os.Lstat(f.Name())
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(ours, now) {
		return fmt.Errorf("%s: %w", b.ID, ErrNotExist)
	}
	return err
}

// group is the container's cgroup, as far as it is still there.
func (b *box) group() (*cgroup.Cgroup, error) {
	return cgroup.Load(b.Cgroup, func() cgroup.Manager { return systemd.Manager{} })
}

const paused specs.ContainerState = "paused" // beyond the specification, as runc's

// status asks the kernel what the container does. The process is nil if it has
// stopped; the caller closes it.
func (b *box) status() (specs.ContainerState, *os.File, error) {
	pidfd, err := b.Process.Open()
	if errors.Is(err, spawn.ErrGone) {
		return specs.StateStopped, nil, nil
	}
	if err != nil {
		return "", nil, err
	}
	status, err := b.alive()
	if err != nil {
		return "", nil, errors.Join(err, pidfd.Close())
	}
	return status, pidfd, nil
}

// alive is the status of a container whose process is there.
func (b *box) alive() (specs.ContainerState, error) {
	g, err := b.group()
	if err != nil {
		return "", err
	}
	if frozen, err := g.Frozen(); frozen || err != nil {
		return paused, err
	}
	held, err := spawn.Held(b.dir)
	if held {
		return specs.StateCreated, err
	}
	return specs.StateRunning, err
}

// options are those with which the container was created.
func (b *box) options() container.Options {
	return container.Options{
		ID: b.ID, Bundle: b.Bundle, HoldIn: b.dir,
		Warn: func(err error) {
			if errors.Is(err, container.ErrByHabit) {
				b.tool.log.note(err.Error())
				return
			}
			b.tool.log.warn(err.Error())
		},
	}
}
