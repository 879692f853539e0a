// Package passwd finds out who a container's user is from the image's own
// /etc/passwd and /etc/group. The files are hostile: they are opened beneath
// the image's root, must be regular, and are read up to a limit; numbers that
// do not fit are errors and never wrap to root (CVE-2026-30892).
package passwd

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/sys"
)

const (
	maxFile = 16 << 20 // bytes
	// maxID: 2^32-1 is "no change" to chown(2) and setresuid(2).
	maxID = 1<<32 - 2
	// maxFields: one more than a line of passwd(5) has.
	maxFields = 8
	// maxGroups is what setgroups(2) takes.
	maxGroups = 65536
)

var (
	// ErrNoUser is a user that the image does not know.
	ErrNoUser = errors.New("no such user in the image")
	// ErrNoGroup is a group that the image does not know.
	ErrNoGroup = errors.New("no such group in the image")
)

// User is a resolved user.
type User struct {
	UID, GID uint32
	Groups   []uint32 // further groups that the user is a member of
	Home     string   // "/" if nothing names one
}

// Lookup resolves spec, "USER[:GROUP]" with names or numbers, in the tree
// below root. An empty spec is root, an empty group none. A number needs no
// entry.
func Lookup(root *os.File, spec string) (*User, error) {
	name, group, _ := strings.Cut(spec, ":")
	if name == "" {
		name = "0"
	}
	u := &User{Home: "/"}
	uid, number, err := parseID(name)
	if err != nil {
		return nil, fmt.Errorf("user %q: %w", name, err)
	}
	u.UID = uid
	found, login := false, name
	err = lines(root, "etc/passwd", func(f []string) {
		if found || len(f) < 6 {
			return
		}
		id, ok, err := parseID(f[2])
		if err != nil || !ok || (number && id != uid) || (!number && f[0] != name) {
			return
		}
		gid, ok, err := parseID(f[3])
		if err != nil || !ok {
			return
		}
		found, login = true, f[0]
		u.UID, u.GID = id, gid
		if f[5] != "" {
			u.Home = f[5]
		}
	})
	if err != nil {
		return nil, err
	}
	if !found && !number {
		return nil, fmt.Errorf("user %q: %w", name, ErrNoUser)
	}
	if group != "" {
		// A group that is named stands alone, as with Docker.
		u.GID, err = lookupGroup(root, group)
		return u, err
	}
	if found {
		u.Groups, err = memberships(root, login, u.GID)
	}
	return u, err
}

func lookupGroup(root *os.File, name string) (uint32, error) {
	gid, number, err := parseID(name)
	if err != nil {
		return 0, fmt.Errorf("group %q: %w", name, err)
	}
	if number {
		return gid, nil
	}
	found := false
	err = lines(root, "etc/group", func(f []string) {
		if found || len(f) < 3 || f[0] != name {
			return
		}
		if id, ok, err := parseID(f[2]); err == nil && ok {
			gid, found = id, true
		}
	})
	if err != nil {
		return 0, err
	}
	if !found {
		return 0, fmt.Errorf("group %q: %w", name, ErrNoGroup)
	}
	return gid, nil
}

func memberships(root *os.File, login string, primary uint32) ([]uint32, error) {
	var groups []uint32
	err := lines(root, "etc/group", func(f []string) {
		if len(f) < 4 {
			return
		}
		id, ok, err := parseID(f[2])
		if err != nil || !ok || id == primary {
			return
		}
		for member := range strings.SplitSeq(f[3], ",") {
			if member == login {
				groups = append(groups, id)
				break
			}
		}
	})
	if err == nil && len(groups) > maxGroups {
		err = fmt.Errorf("user %q is in %d groups of the image; %d are possible", login, len(groups), maxGroups)
	}
	return groups, err
}

// parseID reads a decimal id. ok is false if s is a name: anything that is
// not all digits.
func parseID(s string) (id uint32, ok bool, err error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > maxID {
		return 0, true, fmt.Errorf("not an id from 0 to %d", uint64(maxID))
	}
	return uint32(n), true, nil
}

// lines calls f with the fields of every line of a file in the image. A file
// that is not there has none.
func lines(root *os.File, path string, f func(fields []string)) error {
	file, err := sys.OpenRegular(root, path)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	if errors.Is(err, sys.ErrNotRegular) {
		return fmt.Errorf("/%s of the image is %w", path, sys.ErrNotRegular)
	}
	if err != nil {
		return err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return err
	}
	if len(data) > maxFile {
		return fmt.Errorf("/%s of the image has more than %d bytes", path, maxFile)
	}
	scan := bufio.NewScanner(bytes.NewReader(data))
	scan.Buffer(nil, maxFile+1)
	for scan.Scan() {
		f(strings.SplitN(scan.Text(), ":", maxFields))
	}
	return scan.Err()
}
