package container

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/stage"
	"shocker.sh/lib/store"
	"shocker.sh/lib/sys"
	"shocker.sh/lib/undo"
)

// SupervisorLock is the file in a container's run dir that is locked as long
// as somebody waits for the program and has not yet cleaned up after it.
const SupervisorLock = "supervisor"

// Supervised says whether somebody holds the supervisor's lock.
func Supervised(runDir string) (bool, error) {
	f, err := os.Open(filepath.Join(runDir, SupervisorLock))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	err = sys.Flock(f, unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}

// Leftovers counts the containers of which commands or supervisors that were
// killed have left something that gc cleans up. What a command is at work on
// at this moment is none, nor what runs, has ended in order or is parked
// between two stages. For these it costs a few system calls each: every run
// asks. What cannot be read is not counted, but told by gc.
func Leftovers(host stage.Host, st *store.Store) int {
	dirs, err := os.ReadDir(host.Run)
	if err != nil {
		return 0
	}
	n := 0
	for _, d := range dirs {
		if left, err := leftover(host, st, d.Name()); err == nil && left {
			n++
		}
	}
	return n
}

// leftover looks at the run dir of that name.
func leftover(host stage.Host, st *store.Store, id string) (bool, error) {
	dir := host.RunDir(id)
	log := undo.Open(dir)
	live, died, err := log.Working()
	if err != nil || live {
		return false, err
	}
	if strings.HasPrefix(id, ".") { // one that was being made
		return died, nil
	}
	if !died {
		pending, err := log.Pending(undo.Exit)
		if err != nil || !pending {
			return false, err
		}
		if supervised, err := Supervised(dir); err != nil || supervised {
			return false, err
		}
	}
	c, err := Get(host, st, id)
	if errors.Is(err, store.ErrNoContainer) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return c.Status == Exited || died && c.Status == Created, nil
}
