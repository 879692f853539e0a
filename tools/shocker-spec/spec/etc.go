package spec

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"shocker.sh/lib/sys"
)

// etcFiles are made for every container in its run dir and bind-mounted, so
// that its image and its snapshot stay as they are.
var etcFiles = []string{"resolv.conf", "hosts", "hostname"}

// writeEtc makes the files, owned by the container's root. Of the host's other
// users nobody passes through the run dir: the container's root is attached in
// there, with programs that are set-user-ID for its users.
func writeEtc(runDir, hostname string, owner int) error {
	if err := errors.Join(os.Chown(runDir, 0, owner), os.Chmod(runDir, 0o710)); err != nil {
		return err
	}
	resolv, err := resolvConf()
	if err != nil {
		return err
	}
	content := map[string]string{
		"resolv.conf": resolv,
		"hosts":       "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
		"hostname":    hostname + "\n",
	}
	for _, name := range etcFiles {
		path := filepath.Join(runDir, name)
		if err := sys.WriteFile(path, []byte(content[name]), 0o644, false); err != nil {
			return err
		}
		if err := os.Chown(path, owner, owner); err != nil {
			return err
		}
	}
	return nil
}

// resolvConf is the host's, less the name servers on loopback, which a
// container cannot reach. If all are there, systemd-resolved's own list is
// taken, as Docker does.
func resolvConf() (string, error) {
	for _, path := range []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"} {
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		var keep strings.Builder
		servers := false
		for line := range strings.Lines(string(data)) {
			f := strings.Fields(line)
			if len(f) > 1 && f[0] == "nameserver" {
				if strings.HasPrefix(f[1], "127.") || f[1] == "::1" {
					continue
				}
				servers = true
			}
			keep.WriteString(line)
		}
		if servers {
			return keep.String(), nil
		}
	}
	return "", nil
}
