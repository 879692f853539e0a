package systemd

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/testkit"
)

// insideEnv marks the process of a test that has systemd as its PID 1.
const insideEnv = "SYSTEMD_TEST_INSIDE"

// underSystemd runs f on a test host, in a process that lives under a systemd of
// its own. That is Debian's, with one target, which wants nothing but D-Bus.
func underSystemd(t *testing.T, f func(t *testing.T)) {
	testkit.Requires(t, "systemd")
	if os.Getenv(insideEnv) != "" {
		f(t)
		return
	}
	testkit.Run(t, testkit.Options{NoStore: true}, func(t *testing.T, h *testkit.Host) {
		pid, log := boot(t, h)
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("nsenter", "-t", strconv.Itoa(pid), "-m", "-p", self, "-test.v", "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), insideEnv+"=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
			said, _ := os.ReadFile(log)
			t.Errorf("%v\n%s\nsystemd:\n%s", err, out, said)
		}
	})
}

// The machine's units stay out: they would be started here.
const prepare = `
set -eu
root=/sys/fs/cgroup
[ -e $root/cgroup.procs ] || root=$root/unified
echo 0 >$root/cgroup.procs
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs -o mode=755 run /run
mkdir /run/dbus
mount -t tmpfs -o mode=755 units /etc/systemd/system
cp "$1"/* /etc/systemd/system/
exec env -i PATH="$PATH" container=shocker-test SYSTEMD_LOG_TARGET=console \
	/lib/systemd/systemd --system --unit=shocker-test.target --show-status=0
`

// systemd comes to the bus when units of these names run.
var units = map[string]string{
	"shocker-test.target": "[Unit]\nDefaultDependencies=no\nWants=dbus.service\nAfter=dbus.service\n",
	"dbus.socket":         "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=/run/dbus/system_bus_socket\n",
	"dbus.service": "[Unit]\nDefaultDependencies=no\nRequires=dbus.socket\n[Service]\nType=notify\nNotifyAccess=main\n" +
		"ExecStart=/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile --systemd-activation\n",
}

// boot starts systemd and returns its pid once it is up.
func boot(t *testing.T, h *testkit.Host) (pid int, log string) {
	t.Helper()
	dir := filepath.Join(h.Dir, "units")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range units {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := os.Create(filepath.Join(h.Dir, "systemd.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command("sh", "-c", prepare, "sh", dir)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(cmd.Process.Kill(), ended(cmd)); err != nil {
			t.Error(err)
		}
	})
	testkit.Eventually(t, 30*time.Second, func() error {
		if cmd.ProcessState != nil {
			return errors.New("systemd has ended")
		}
		cmd := exec.Command("nsenter", "-t", strconv.Itoa(cmd.Process.Pid), "-m", "-p", "systemctl", "is-active", "shocker-test.target")
		if text, err := cmd.CombinedOutput(); err != nil || string(text) != "active\n" {
			said, _ := os.ReadFile(out.Name())
			return fmt.Errorf("%w: %s\n%s", err, text, said)
		}
		return nil
	})
	return cmd.Process.Pid, out.Name()
}

// ended waits for a process that was killed.
func ended(cmd *exec.Cmd) error {
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) {
		return err
	}
	return nil
}
