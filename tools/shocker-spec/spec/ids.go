package spec

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"shocker.sh/lib/stage"
	"shocker.sh/lib/sys"
	"shocker.sh/lib/undo"
)

// Each container has this many user and group ids of its own, from firstID
// up. The ranges lie above what systemd and /etc/subuid use by default
// (systemd's UIDS-GIDS document).
const (
	rangeSize = 65536
	firstID   = 1879048192
	ranges    = (1<<32 - 2 - firstID) / rangeSize
)

var errNoRange = errors.New("every range of user ids is in use")

// takeRange takes a range for the container while it runs: a file in RUN/ids,
// named by the range's number, that holds the container's id.
func takeRange(host stage.Host, id string, log *undo.Log) (uint32, error) {
	dir := host.IDRanges()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return 0, err
	}
	reserved, err := subordinate("/etc/subuid", "/etc/subgid")
	if err != nil {
		return 0, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	taken := make(map[string]bool, len(entries))
	for _, e := range entries {
		taken[e.Name()] = true
	}
	for n := range uint32(ranges) {
		name := strconv.FormatUint(uint64(n), 10)
		first := firstID + n*rangeSize
		if taken[name] || reserved.overlaps(uint64(first)) {
			continue
		}
		path := filepath.Join(dir, name)
		entry := &undo.Entry{Stage: Name, Class: undo.Exit, Op: undo.OpUnlink, Path: path, Data: id}
		if err := log.Push(entry); err != nil {
			return 0, err
		}
		err := sys.Claim(path, id)
		if err == nil {
			return first, nil
		}
		dropErr := log.Drop(entry)
		if !errors.Is(err, fs.ErrExist) || dropErr != nil {
			return 0, errors.Join(err, dropErr)
		}
	}
	return 0, errNoRange
}

type idRange struct{ first, count uint64 }

type idRanges []idRange

func (r idRanges) overlaps(first uint64) bool {
	for _, i := range r {
		if first < i.first+i.count && i.first < first+rangeSize {
			return true
		}
	}
	return false
}

// subordinate reads the ranges that subuid(5) and subgid(5) files hand out.
func subordinate(files ...string) (idRanges, error) {
	var all idRanges
	for _, file := range files {
		f, err := os.Open(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		defer f.Close()
		scan := bufio.NewScanner(f)
		for scan.Scan() {
			fields := strings.Split(strings.TrimSpace(scan.Text()), ":")
			if len(fields) != 3 {
				continue
			}
			first, err1 := strconv.ParseUint(fields[1], 10, 33)
			count, err2 := strconv.ParseUint(fields[2], 10, 33)
			if err := errors.Join(err1, err2); err != nil {
				return nil, fmt.Errorf("%s: %q: %w", file, scan.Text(), err)
			}
			all = append(all, idRange{first, count})
		}
		if err := scan.Err(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func mapping(first uint32) []specs.LinuxIDMapping {
	return []specs.LinuxIDMapping{{ContainerID: 0, HostID: first, Size: rangeSize}}
}
