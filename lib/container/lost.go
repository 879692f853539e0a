package container

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/cgroup/group"
	"shocker.sh/lib/cgroup/hierarchy"
	"shocker.sh/lib/record"
	"shocker.sh/lib/stage"
	"shocker.sh/lib/store"
	"shocker.sh/lib/sys"
	"shocker.sh/lib/undo"
)

// A run dir can be removed by hand, and its undo log with it. Then what the
// stages made is found by its place and its owner: the pins below the run dir,
// the files that lease something to the container, and the cgroup that its
// record names, if it is sticky and so made by a shocker-cg, and not for another
// store.

// ErrOrphan is a program that runs though nothing is known of its container.
var ErrOrphan = errors.New("holds processes of a container that is not known any more")

// Settle undoes what is undone when the program of a container has ended, with
// its log or, if that is lost, without.
func Settle(host stage.Host, id string) error {
	log := undo.Open(host.RunDir(id))
	if err := log.Replay("", undo.Exit); err != nil {
		return err
	}
	lost, err := log.Lost()
	if err != nil || !lost {
		return err
	}
	return reclaim(host, id)
}

// reclaim is the undo of class exit without a log.
func reclaim(host stage.Host, id string) error {
	dir, err := filepath.EvalSymlinks(host.RunDir(id))
	if errors.Is(err, fs.ErrNotExist) {
		return release(func(owner string) bool { return owner == id }, host.Leases(), host.IDRanges())
	}
	if err != nil {
		return err
	}
	mounts, err := sys.Mounts()
	if err != nil {
		return err
	}
	for _, m := range slices.Backward(mounts) {
		if !strings.HasPrefix(m.Path, dir+"/") {
			continue
		}
		if err := sys.Unmount(m.Path); err != nil {
			return err
		}
	}
	return release(func(owner string) bool { return owner == id }, host.Leases(), host.IDRanges())
}

// release gives back what is taken by the files in these directories, addresses,
// ranges of ids or names, where the owner that a file says is gone.
func release(gone func(owner string) bool, dirs ...string) error {
	for _, dir := range dirs {
		files, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, f := range files {
			path := filepath.Join(dir, f.Name())
			owner, err := os.ReadFile(path)
			if err == nil && gone(string(owner)) {
				err = os.Remove(path)
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// removeGroup kills what runs in the container's cgroup and removes it,
// without a log.
func removeGroup(host stage.Host, st *store.Store, id string) error {
	path := ownGroup(host, id)
	if r, err := st.Record(id); err == nil {
		if path, err = groupOf(r); err != nil {
			return err
		}
	}
	if group.CheckPath(path) != nil {
		return nil // none, or not in our notation
	}
	g, err := group.New(host.CgroupRoot, path)
	if err != nil {
		return err
	}
	if owner := group.Owner(g.Dirs()); owner != "" && owner != host.Owner() {
		return nil
	}
	var dirs []undo.Dir
	for _, dir := range g.Dirs() {
		dirs = append(dirs, undo.Dir{Path: dir})
	}
	return undo.RemoveCgroups(dirs)
}

// owns says whether the group in these directories was made for this store.
func owns(host stage.Host, dirs []string) bool {
	owner := host.Owner()
	return owner != "" && group.Owner(dirs) == owner
}

// ownGroup is the group that shocker-cg makes for a container.
func ownGroup(host stage.Host, id string) string { return filepath.Join("/", host.CgroupParent, id) }

// RunsUnknown says whether something runs in the cgroup of a container that
// has neither a place in the store nor an undo log: then it is ErrOrphan. That
// of another store's container is none.
func RunsUnknown(host stage.Host, id string) error {
	lost, err := undo.Open(host.RunDir(id)).Lost()
	if err != nil || !lost {
		return err
	}
	g, err := group.New(host.CgroupRoot, ownGroup(host, id))
	if err != nil || !owns(host, g.Dirs()) {
		return err
	}
	running, _, err := populated(host, ownGroup(host, id))
	if err == nil && running {
		err = fmt.Errorf("cgroup %s %w: shocker cg kill %s ends them", ownGroup(host, id), ErrOrphan, id)
	}
	return err
}

// SweepOrphans gives back what containers hold that are gone without their
// undo: addresses, ranges of user ids, names, and cgroups in which nothing runs.
// One in which something runs stays, and is ErrOrphan. A container that is being
// made has its run dir before anything else.
func SweepOrphans(host stage.Host, st *store.Store) error {
	known := func(id string) bool {
		if record.CheckID(id) != nil {
			return false // of what a power cut has left, say
		}
		for _, dir := range []string{host.RunDir(id), st.Container(id)} {
			if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
				return true
			}
		}
		return false
	}
	gone := func(owner string) bool { return !known(owner) }
	errs := []error{release(gone, host.Leases(), host.IDRanges()), release(gone, st.Path("names"))}
	groups, err := ourGroups(host)
	errs = append(errs, err)
	for id, dirs := range groups {
		if known(id) {
			continue
		}
		err := RunsUnknown(host, id)
		if err == nil {
			err = undo.RemoveCgroups(dirs)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// ourGroups are the cgroups that shocker-cg has made for containers of this
// store, by id.
func ourGroups(host stage.Host) (map[string][]undo.Dir, error) {
	found, err := hierarchy.Find(host.CgroupRoot)
	if err != nil {
		return nil, err
	}
	groups := map[string][]undo.Dir{}
	for _, h := range found {
		parent := filepath.Join(h.Mount, host.CgroupParent)
		entries, err := os.ReadDir(parent)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			// Other names are other people's: the parents of groups, and the
			// containers of engines.
			if !store.IsContainerID(e.Name()) {
				continue
			}
			dir := undo.Dir{Path: filepath.Join(parent, e.Name())}
			var s unix.Stat_t
			if err := unix.Lstat(dir.Path, &s); err != nil || s.Mode&unix.S_ISVTX == 0 {
				continue // gone meanwhile, or not ours
			}
			dir.Ino = s.Ino
			groups[e.Name()] = append(groups[e.Name()], dir)
		}
	}
	maps.DeleteFunc(groups, func(_ string, dirs []undo.Dir) bool {
		var paths []string
		for _, d := range dirs {
			paths = append(paths, d.Path)
		}
		return !owns(host, paths)
	})
	return groups, nil
}
