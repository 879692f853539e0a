// Package trust decides which programs Shocker executes as root on behalf of
// its configuration.
package trust

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// ErrNotTrusted is a program that somebody besides root could have put where
// it is, or could change.
var ErrNotTrusted = errors.New("not safe to execute as root")

// Program checks that the executable at path, and the directory it lies in,
// belong to root and can be written by nobody else, and that nobody else can
// put another directory in that one's place. Links are followed first.
func Program(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%s: %w: not an absolute path", path, ErrNotTrusted)
	}
	for _, p := range []string{path, filepath.Dir(path)} {
		real, err := filepath.EvalSymlinks(p)
		if err != nil {
			return err
		}
		if err := chain(path, real); err != nil {
			return err
		}
	}
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() || st.Mode()&0o111 == 0 {
		return fmt.Errorf("%s: %w: it is no executable file; chmod +x it", path, fs.ErrPermission)
	}
	return nil
}

// chain checks real and every directory above it. Only a directory further up
// than the nearest may be writable by others, if it is sticky as /tmp is.
func chain(path, real string) error {
	for p, depth := real, 0; ; p, depth = filepath.Dir(p), depth+1 {
		st, err := os.Lstat(p)
		if err != nil {
			return err
		}
		owner := st.Sys().(*syscall.Stat_t).Uid
		if owner != 0 {
			return fmt.Errorf("%s: %w: %s belongs to uid %d; chown it to root", path, ErrNotTrusted, p, owner)
		}
		sticky := st.IsDir() && st.Mode()&fs.ModeSticky != 0 && depth > 1
		if st.Mode().Perm()&0o022 != 0 && !sticky {
			return fmt.Errorf("%s: %w: %s can be written by others; chmod go-w it", path, ErrNotTrusted, p)
		}
		if p == "/" {
			return nil
		}
	}
}
