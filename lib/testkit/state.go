package testkit

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/sys"
)

// State is what a host holds, kind by kind: mounts, links, addresses, nft,
// iptables (the legacy one), cgroups, subvolumes, files (of the run dirs) and
// processes.
type State map[string][]string

// Snapshot looks at the host.
func (h *Host) Snapshot(t testing.TB) State {
	t.Helper()
	s, err := h.snapshot()
	if err != nil {
		t.Fatalf("look at the test host: %v", err)
	}
	return s
}

// Start is the host as it was when the test began.
func (h *Host) Start() State { return h.start }

// Settle fails the test if the host does not become what it was before, in
// all kinds but those named. The kernel removes some things by and by: a link
// after its namespace, a namespace after its last process.
func (h *Host) Settle(t testing.TB, before State, except ...string) {
	t.Helper()
	err := eventually(5*time.Second, func() error {
		now, err := h.snapshot()
		if err != nil {
			return err
		}
		if d := Diff(before, now, except...); d != "" {
			return fmt.Errorf("left behind (+) or missing (-):\n%s", d)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// Diff lists what only one of the states has, a line each: "+ link bridge0".
// It is empty if there is nothing.
func Diff(before, after State, except ...string) string {
	var kinds, lines []string
	for kind := range after {
		kinds = append(kinds, kind)
	}
	slices.Sort(kinds)
	for _, kind := range kinds {
		if slices.Contains(except, kind) {
			continue
		}
		lines = append(lines, only("-", kind, before[kind], after[kind])...)
		lines = append(lines, only("+", kind, after[kind], before[kind])...)
	}
	return strings.Join(lines, "\n")
}

// only lists the members of a that b lacks; one that is there twice counts twice.
func only(sign, kind string, a, b []string) (lines []string) {
	rest := slices.Clone(b)
	for _, x := range a {
		if i := slices.Index(rest, x); i >= 0 {
			rest = slices.Delete(rest, i, i+1)
		} else {
			lines = append(lines, sign+" "+kind+": "+x)
		}
	}
	return lines
}

func (h *Host) snapshot() (State, error) {
	s := State{}
	for kind, look := range map[string]func() ([]string, error){
		"mounts":     mounts,
		"links":      links,
		"nft":        nft,
		"iptables":   iptables,
		"cgroups":    cgroups,
		"subvolumes": h.subvolumes,
		"files":      h.files,
		"processes":  processes,
	} {
		lines, err := look()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", kind, err)
		}
		slices.Sort(lines)
		s[kind] = lines
	}
	return s, nil
}

func mounts() (lines []string, err error) {
	all, err := sys.Mounts()
	for _, m := range all {
		lines = append(lines, m.Type+" on "+m.Path)
	}
	return lines, err
}

// links with their addresses; those that the kernel gives to a link by itself
// come with it.
func links() (lines []string, err error) {
	all, err := net.Interfaces()
	for _, link := range all {
		lines = append(lines, link.Name)
		addresses, err := link.Addrs()
		if err != nil {
			continue // the link is going
		}
		for _, a := range addresses {
			if ip, ok := a.(*net.IPNet); !ok || !ip.IP.IsLinkLocalUnicast() {
				lines = append(lines, link.Name+" "+a.String())
			}
		}
	}
	return lines, err
}

// nft lists every rule and set of every table, without counters and handles.
func nft() ([]string, error) {
	path, err := exec.LookPath(lookSbin("nft"))
	if err != nil {
		return nil, nil // a test that is about rules requires it
	}
	out, err := exec.Command(path, "--stateless", "list", "ruleset").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("nft: %w: %s", err, out)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); line != "" && line != "}" {
			lines = append(lines, line)
		}
	}
	return lines, nil
}

// iptables lists the rules of iptables-legacy's filter table, if somebody has
// used it. To ask for one that is not there would make it.
func iptables() ([]string, error) {
	names, err := os.ReadFile("/proc/self/net/ip_tables_names")
	if os.IsNotExist(err) || err == nil && !strings.Contains(string(names), "filter\n") {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out, err := exec.Command(lookSbin("iptables-legacy"), "-w", "-S").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("iptables-legacy: %w: %s", err, out)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n"), nil
}

func cgroups() (lines []string, err error) {
	all, err := hierarchies()
	if err != nil {
		return nil, err
	}
	for _, h := range all {
		err := filepath.WalkDir(h.Point, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				lines = append(lines, path)
			}
			return gone(err)
		})
		if err != nil {
			return nil, err
		}
	}
	return lines, nil
}

// subvolumes are the directories with inode number 256 on btrfs; a deleted
// one is gone at once. The files below them are the containers' business.
func (h *Host) subvolumes() (lines []string, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(h.Store, &st); err != nil {
		return nil, err
	}
	if st.Type != unix.BTRFS_SUPER_MAGIC {
		return nil, nil
	}
	err = filepath.WalkDir(h.Store, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() || path == h.Store {
			return gone(err)
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return gone(err)
		}
		if st.Ino != 256 {
			return nil
		}
		rel, err := filepath.Rel(h.Store, path)
		lines = append(lines, rel)
		if err == nil {
			err = fs.SkipDir
		}
		return err
	})
	return lines, err
}

// files are those of the run dirs, and of the store's containers and images.
func (h *Host) files() (lines []string, err error) {
	for _, dir := range []string{h.RunDir, filepath.Join(h.Store, "containers"), filepath.Join(h.Store, "images"), filepath.Join(h.Store, "tmp")} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return gone(err)
			}
			lines = append(lines, path)
			if d.IsDir() && d.Name() == "rootfs" {
				return fs.SkipDir
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return lines, nil
}

// processes are all but PID 1, the test and what the test keeps: a registry.
func processes() (lines []string, err error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	self := fmt.Sprintf("/proc/%d", os.Getpid())
	for _, dir := range dirs {
		text, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || dir == "/proc/1" || dir == self {
			continue // gone meanwhile
		}
		command := strings.TrimRight(strings.ReplaceAll(string(text), "\x00", " "), " ")
		if !strings.HasPrefix(command, "docker-registry ") {
			lines = append(lines, command)
		}
	}
	return lines, nil
}

// gone makes nothing of the error of a file that went while it was looked at.
func gone(err error) error {
	if os.IsNotExist(err) || err == unix.ENODEV {
		return nil
	}
	return err
}
