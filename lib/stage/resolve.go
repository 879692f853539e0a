package stage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"shocker.sh/lib/trust"
)

// Resolve says which foreign program serves a stage: the first executable of
// that name in the directories of SHOCKER_PATH. It returns "" if our own
// does. One that somebody besides root could have put there is an error, not
// passed over.
func (h Host) Resolve(name string) (string, error) {
	for _, dir := range h.Dirs() {
		if !filepath.IsAbs(dir) {
			return "", fmt.Errorf("SHOCKER_PATH: %q is not an absolute path", dir)
		}
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return "", err
		}
		if err := trust.Program(path); err != nil {
			return "", fmt.Errorf("stage %s: %w", name, err)
		}
		return path, nil
	}
	return "", nil
}
