package container

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"shocker.sh/lib/record"
	"shocker.sh/lib/stage"
)

// populated says whether processes are in the container's cgroup or below it,
// and whether they are frozen.
func populated(host stage.Host, r *record.Record) (running, frozen bool, err error) {
	var group string
	if _, err := r.Get(&group, "linux", "cgroupsPath"); err != nil || group == "" {
		return false, false, err
	}
	if !strings.HasPrefix(group, "/") {
		return false, false, nil // another manager's notation
	}
	if host.CgroupV2() {
		return populatedV2(filepath.Join(host.CgroupRoot, group))
	}
	// Every process is somewhere in each hierarchy; the freezer's also tells
	// whether it is frozen. Where that is missing any other will do.
	hierarchies, err := os.ReadDir(host.CgroupRoot)
	if err != nil {
		return false, false, err
	}
	names := []string{"freezer"}
	for _, h := range hierarchies {
		names = append(names, h.Name())
	}
	for _, name := range names {
		dir := filepath.Join(host.CgroupRoot, name, group)
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err != nil {
			continue
		}
		running, err = populatedV1(dir)
		if err != nil || !running {
			return running, false, err
		}
		state, err := os.ReadFile(filepath.Join(dir, "freezer.state"))
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return true, strings.HasPrefix(string(state), "FROZEN"), err
	}
	return false, false, nil
}

// populatedV2 reads cgroup.events (Documentation/admin-guide/cgroup-v2.rst).
func populatedV2(dir string) (running, frozen bool, err error) {
	events, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, false, nil
	}
	return bytes.Contains(events, []byte("populated 1")), bytes.Contains(events, []byte("frozen 1")), err
}

// populatedV1 looks for a process in the group and those below it.
func populatedV1(dir string) (bool, error) {
	found := false
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.Name() != "cgroup.procs" {
			return err
		}
		procs, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if len(procs) > 0 {
			found = true
			return fs.SkipAll
		}
		return err
	})
	return found, err
}
