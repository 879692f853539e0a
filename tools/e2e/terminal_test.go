package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/testkit"
)

// terminal is a pseudo-terminal with somebody who types.
type terminal struct {
	*testing.T
	master, slave *os.File
	shown         bytes.Buffer // and not yet expected
}

func newTerminal(t *testing.T, rows, columns uint16) *terminal {
	t.Helper()
	// Not blocking, so that reading has a deadline.
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	master := os.NewFile(uintptr(fd), "ptmx")
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprint("/dev/pts/", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	term := &terminal{T: t, master: master, slave: slave}
	term.resize(rows, columns)
	return term
}

func (term *terminal) resize(rows, columns uint16) {
	term.Helper()
	size := &unix.Winsize{Row: rows, Col: columns}
	if err := unix.IoctlSetWinsize(int(term.slave.Fd()), unix.TIOCSWINSZ, size); err != nil {
		term.Fatal(err)
	}
}

// start runs a command of a session whose terminal this is.
func (term *terminal) start(name string, args ...string) *exec.Cmd {
	term.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = term.slave, term.slave, term.slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		term.Fatal(err)
	}
	return cmd
}

func (term *terminal) types(text string) {
	term.Helper()
	if _, err := term.master.WriteString(text); err != nil {
		term.Fatal(err)
	}
}

// expect reads on until text has been shown, and returns what came before it.
func (term *terminal) expect(text string) string {
	term.Helper()
	if err := term.master.SetReadDeadline(time.Now().Add(testkit.Patience(20 * time.Second))); err != nil {
		term.Fatal(err)
	}
	buf := make([]byte, 4096)
	for {
		if before, rest, ok := strings.Cut(term.shown.String(), text); ok {
			term.shown.Reset()
			term.shown.WriteString(rest)
			return before
		}
		n, err := term.master.Read(buf)
		term.shown.Write(buf[:n])
		if err != nil {
			term.Fatalf("waiting for %q: %v; shown: %q", text, err, term.shown.String())
		}
	}
}

func (term *terminal) mode() unix.Termios {
	term.Helper()
	mode, err := unix.IoctlGetTermios(int(term.slave.Fd()), unix.TCGETS)
	if err != nil {
		term.Fatal(err)
	}
	return *mode
}

// ended waits for a command and returns its exit status.
func (term *terminal) ended(cmd *exec.Cmd) int {
	term.Helper()
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		term.Fatal(err)
	}
	return cmd.ProcessState.ExitCode()
}

// inForeground says whether the process with this command line is in the
// foreground of its terminal (proc_pid_stat(5), pgrp and tpgid).
func inForeground(cmdline string) error {
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, path := range all {
		if line, err := os.ReadFile(path); err != nil || string(line) != cmdline {
			continue
		}
		stat, err := os.ReadFile(filepath.Join(filepath.Dir(path), "stat"))
		if err != nil {
			return err
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if pgrp, tpgid := fields[2], fields[5]; pgrp != tpgid {
			return fmt.Errorf("%q is in group %s, and %s in the foreground", cmdline, pgrp, tpgid)
		}
		return nil
	}
	return fmt.Errorf("no process %q", cmdline)
}

// TestTerminal is `run -it debian:12 bash`: job control, the window's size,
// and the caller's terminal as it was.
func TestTerminal(t *testing.T) {
	if testing.Short() {
		t.Skip("it copies a whole Debian")
	}
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		t.Chdir(h.Dir)
		h.Must(t, "init", h.Debian(t))
		image := h.Must(t, "images", "-q")[:len("img_42002")]
		term := newTerminal(t, 33, 101)
		before := term.mode()
		cmd := term.start("shocker", "run", "-it", "--name", "seat", "-e", "TERM=dumb", "-e", "PS1=$ ", image, "bash", "--norc")
		term.expect("$ ")
		if term.mode() == before {
			t.Error("the caller's terminal is not in raw mode")
		}
		term.types("stty size; tty; ls -l /proc/self/fd/0 | cut -d'>' -f2\r")
		term.expect("33 101\r\n/dev/pts/0\r\n /dev/pts/0\r\n$ ")
		term.resize(50, 77)
		term.types("until [ \"$(stty size)\" = '50 77' ]; do sleep 0.01; done; echo resi''zed\r")
		term.expect("resized\r\n$ ")
		// Stop, see, go on in the background, come to the fore, interrupt.
		term.types("sh -c 'echo g''o; exec sleep 1000'\r")
		term.expect("go\r\n")
		term.types("\x1a")
		term.expect("Stopped")
		term.expect("$ ")
		term.types("bg >/dev/null; jobs\r")
		term.expect("Running")
		term.expect("$ ")
		term.types("fg\r")
		term.expect("sleep 1000'\r\n")
		// The shell says so before it lets go of the terminal.
		testkit.Eventually(t, 10*time.Second, func() error { return inForeground("sleep\x001000\x00") })
		term.types("\x03")
		term.expect("$ ")
		term.types("echo sta''tus $?\r")
		term.expect("status 130\r\n$ ")

		// A second terminal in the same container.
		second := newTerminal(t, 20, 60)
		asWas := second.mode()
		exec := second.start("shocker", "exec", "-it", "-e", "TERM=dumb", "-e", "PS1=% ", "seat", "bash", "--norc")
		second.expect("% ")
		second.types("stty size; tty; exit 4\r")
		second.expect("20 60\r\n/dev/pts/1\r\n")
		if code := second.ended(exec); code != 4 {
			t.Errorf("exec -it: status %d; want 4", code)
		}
		if second.mode() != asWas {
			t.Error("after exec the terminal is not as it was")
		}

		list := second.start("shocker", "ps", "-l")
		second.expect("CONTAINER_ID  COMMAND  ")
		second.expect("  running  ")
		if code := second.ended(list); code != 0 {
			t.Errorf("ps -l: status %d; want 0", code)
		}

		term.types("exit 7\r")
		if code := term.ended(cmd); code != 7 {
			t.Errorf("run -it: status %d; want 7", code)
		}
		if term.mode() != before {
			t.Error("after run the terminal is not as it was")
		}
		h.Must(t, "rm", "seat")

		// One that is only looked at.
		shown := newTerminal(t, 44, 66)
		cmd = shown.start("shocker", "run", "--rm", "-t", image, "stty", "size")
		shown.expect("44 66\r")
		if code := shown.ended(cmd); code != 0 {
			t.Errorf("run -t: status %d; want 0", code)
		}
	})
}

// TestTerminalRestored: whatever ends the run, and if it never began.
func TestTerminalRestored(t *testing.T) {
	on(t, func(t *testing.T, h *testkit.Host, image string) {
		const script = "trap 'exit 5' TERM; trap 'exit 6' HUP; echo u''p; while :; do sleep 0.01; done"
		for _, test := range []struct {
			what    string
			program []string
			end     func(pid int) error
			code    int
		}{
			{"there is no such program", []string{"nosuchprogram"}, nil, 127},
			{"run is told to end", []string{"sh", "-c", script}, func(pid int) error { return unix.Kill(pid, unix.SIGTERM) }, 5},
			{"run is told that its terminal is gone", []string{"sh", "-c", script}, func(pid int) error { return unix.Kill(pid, unix.SIGHUP) }, 6},
			{"the container is removed", []string{"sh", "-c", script}, func(int) error {
				h.Must(t, "rm", "-f", "seat")
				return nil
			}, 137},
		} {
			term := newTerminal(t, 24, 80)
			before := term.mode()
			cmd := term.start("shocker", append([]string{"run", "--rm", "-it", "--name", "seat", image}, test.program...)...)
			if test.end != nil {
				term.expect("up\r\n")
				if err := test.end(cmd.Process.Pid); err != nil {
					t.Fatal(err)
				}
			}
			if code := term.ended(cmd); code != test.code {
				t.Errorf("%s: status %d; want %d", test.what, code, test.code)
			}
			if term.mode() != before {
				t.Errorf("%s: the terminal is not as it was", test.what)
			}
			if left := ids(t, h); len(left) != 0 {
				t.Errorf("%s: --rm left %q", test.what, left)
			}
		}
	})
}
