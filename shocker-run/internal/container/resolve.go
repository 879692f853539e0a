package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/sys"
)

// guarded are the directories in which the kernel's file systems and the
// container's own files are mounted. In an image they must be directories: a
// link would put those mounts elsewhere and leave the real place to the image
// (CVE-2026-41579, CVE-2026-47766).
var guarded = map[string]bool{"dev": true, "proc": true, "sys": true, "etc": true}

// place is where something is mounted in the root.
type place struct {
	elems []string // of its path in the root, without links; none: the root
	known int      // so many of them, from the first on, are there already
	isDir bool     // if all are known: it is a directory
	// covered says that an earlier mount is on its way, so that there may be
	// links.
	covered bool
}

func (p *place) String() string { return strings.Join(p.elems, "/") }

// resolvePlace finds out where dest leads in the image's tree: links are
// followed as if root were "/". Nothing is made. covered says which paths lie
// on an earlier mount, where the tree tells nothing: what is there counts as
// not known.
func resolvePlace(root *os.File, dest string, covered func(string) bool) (*place, error) {
	p := &place{isDir: true}
	todo := split(dest)
	for links := 0; len(todo) > 0; {
		part := todo[0]
		todo = todo[1:]
		if part == ".." {
			p.elems = p.elems[:max(0, len(p.elems)-1)]
			p.known = min(p.known, len(p.elems))
			p.isDir, p.covered = true, covered(p.String())
			continue
		}
		above := p.elems
		p.elems = append(above[:len(above):len(above)], part)
		if p.covered = p.covered || covered(p.String()); p.covered || p.known < len(above) {
			continue
		}
		target, isDir, err := look(root, p.String())
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("mount point %s: %w", dest, err)
		}
		if target == "" {
			p.known, p.isDir = len(p.elems), isDir
			continue
		}
		if len(above) == 0 && guarded[part] {
			return nil, fmt.Errorf("%w: /%s of the image leads to %q; make it a directory", ErrUnsafeMount, part, target)
		}
		if links++; links > maxLinks {
			return nil, fmt.Errorf("mount point %s: %w", dest, unix.ELOOP)
		}
		if p.elems = above; strings.HasPrefix(target, "/") {
			p.elems, p.known, p.covered = nil, 0, false
		}
		todo = append(split(target), todo...)
	}
	return p, nil
}

// maxLinks on the way to a file, as the kernel has it (path_resolution(7)).
const maxLinks = 40

// look tells what path is: a link, and where to, or whether it is a
// directory.
func look(root *os.File, path string) (target string, isDir bool, retErr error) {
	f, err := sys.OpenBeneath(root, path, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return "", false, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", false, err
	}
	if st.Mode()&fs.ModeSymlink != 0 {
		target, err = readLink(f)
	}
	return target, st.IsDir(), err
}

func readLink(f *os.File) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(f.Fd()), "", buf)
	if err != nil {
		return "", os.NewSyscallError("readlink", err)
	}
	return string(buf[:n]), nil
}

// split returns the elements of a path; ".." stays.
func split(p string) []string {
	var parts []string
	for part := range strings.SplitSeq(p, "/") {
		if part != "" && part != "." {
			parts = append(parts, part)
		}
	}
	return parts
}
