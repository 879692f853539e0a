package run

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"shocker.sh/shocker-run/internal/console"
)

// typist is a terminal with somebody who types.
type typist struct {
	*testing.T
	master, slave *os.File
	seen          bytes.Buffer
}

func newTypist(t *testing.T) *typist {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	peer, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", peer), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	ty := &typist{T: t, master: os.NewFile(uintptr(fd), "ptmx"), slave: slave}
	t.Cleanup(func() { ty.master.Close(); slave.Close() })
	return ty
}

// expect reads until text has been shown.
func (ty *typist) expect(text string) {
	ty.Helper()
	if err := ty.master.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		ty.Fatal(err)
	}
	buf := make([]byte, 4096)
	for {
		if _, after, ok := bytes.Cut(ty.seen.Bytes(), []byte(text)); ok {
			rest := bytes.Clone(after)
			ty.seen.Reset()
			ty.seen.Write(rest)
			return
		}
		n, err := ty.master.Read(buf)
		ty.seen.Write(buf[:n])
		if err != nil {
			ty.Fatalf("waiting for %q: %v; shown: %q", text, err, ty.seen.String())
		}
	}
}

func (ty *typist) typed(text string) {
	ty.Helper()
	if _, err := ty.master.WriteString(text); err != nil {
		ty.Fatal(err)
	}
}

func (ty *typist) mode() unix.Termios {
	ty.Helper()
	m, err := unix.IoctlGetTermios(int(ty.slave.Fd()), unix.TCGETS)
	if err != nil {
		ty.Fatal(err)
	}
	return *m
}

// start runs shocker-run with the terminal as its stdin and stdout.
func (b *box) start(ty *typist, id string, args ...string) *osexec.Cmd {
	b.Helper()
	line := b.record(id, func(s *specs.Spec) { s.Process.Terminal = true }, args...).Line()
	cmd := &osexec.Cmd{
		Path: "/proc/self/exe", Args: []string{Name, "--record", "-", "-i", "--stdin", "3"},
		Stdin: bytes.NewReader(line), Stdout: ty.slave, Stderr: os.Stderr, ExtraFiles: []*os.File{ty.slave},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 3},
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	return cmd
}

func TestTerminal(t *testing.T) {
	inBox(t, func(b *box) {
		ty := newTypist(t)
		if err := console.SetSize(ty.master, 33, 101); err != nil {
			t.Fatal(err)
		}
		before := ty.mode()
		cmd := b.start(ty, "ps_1", "sh")
		ty.expect("# ")
		ty.typed("PS1='> '; tty; stty size; echo done\n")
		ty.expect("/dev/pts/0\r\n33 101\r\ndone\r\n> ")
		if ty.mode() == before {
			t.Error("the caller's terminal is not in raw mode")
		}
		ty.typed("echo to the con''sole > /dev/console; stat -c %t,%u /dev/console /dev/pts/0\n")
		ty.expect("to the console\r\n88,0\r\n88,0\r\n> ")
		if err := console.SetSize(ty.master, 50, 77); err != nil {
			t.Fatal(err)
		}
		ty.typed("while test \"$(stty size)\" != '50 77'; do sleep 0; done; echo re''sized\n")
		ty.expect("resized\r\n> ")
		ty.typed("sh -c 'echo g''o; exec sleep 1000'\n")
		ty.expect("go\r\n")
		ty.typed("\x03") // to sleep, which the shell waits for, and not to us
		ty.expect("> ")
		ty.typed("echo status $?; exit 7\n")
		ty.expect("status 130\r\n")
		var exit *osexec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
			t.Errorf("shocker-run: %v; want status 7", err)
		}
		if ty.mode() != before {
			t.Error("the caller's terminal is not as it was")
		}
	})
}

// The terminal is put back when we are told to end, too.
func TestTerminalRestored(t *testing.T) {
	inBox(t, func(b *box) {
		ty := newTypist(t)
		before := ty.mode()
		for i, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
			cmd := b.start(ty, fmt.Sprintf("ps_%d", i), "sh", "-c", "trap 'exit 9' TERM HUP QUIT; echo rea''dy; while :; do sleep 1; done")
			ty.expect("ready")
			if ty.mode() == before {
				t.Error("the caller's terminal is not in raw mode")
			}
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			var exit *osexec.ExitError
			if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 9 {
				t.Errorf("%v: %v; want status 9 of the program", sig, err)
			}
			if ty.mode() != before {
				t.Errorf("%v: the caller's terminal is not as it was", sig)
			}
		}
	})
}
