package group

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/sys"
)

// Read reads a file of a cgroup, without the newline at its end.
func Read(dir, file string) (string, error) {
	data, err := sys.ReadKernel(filepath.Join(dir, file))
	if errors.Is(err, unix.ENODEV) { // removed after it was opened
		err = &os.PathError{Op: "read", Path: filepath.Join(dir, file), Err: os.ErrNotExist}
	}
	return strings.TrimRight(string(data), "\n"), err
}

// Write writes a value to a file of a cgroup in one write; the error names
// both. The file is never made: on a path that is no cgroup that would put a
// file there and call it a limit.
func Write(dir, file, value string) error {
	path := filepath.Join(dir, file)
	err := sys.WriteKernel(path, value)
	if err == nil {
		return nil
	}
	var pe *os.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return fmt.Errorf("write %q to %s: %w", value, path, err)
}
