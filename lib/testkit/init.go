package testkit

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// beInit is PID 1 of the host: it makes the host, starts the test and reaps
// every orphan until the test ends. The kernel kills the rest when it returns.
func beInit(c config) int {
	runtime.LockOSThread() // a cgroup namespace belongs to a thread
	child, err := startTest(c)
	if err != nil {
		fmt.Fprintf(os.Stderr, "make the test host: %v\n", err)
		return 3
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			fmt.Fprintf(os.Stderr, "wait for the test: %v\n", err)
			return 3
		case pid != child:
		case status.Signaled():
			fmt.Fprintf(os.Stderr, "the test was ended by %v\n", status.Signal())
			return 128 + int(status.Signal())
		default:
			return status.ExitStatus()
		}
	}
}

func startTest(c config) (pid int, err error) {
	if err := c.mountAll(); err != nil {
		return 0, err
	}
	if err := unix.Sethostname([]byte("testhost")); err != nil {
		return 0, fmt.Errorf("set the host's name: %w", err)
	}
	if err := linkUp("lo"); err != nil {
		return 0, err
	}
	// A new network namespace takes this over from the machine.
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0); err != nil {
		return 0, err
	}
	ready := os.NewFile(3, "ready")
	if _, err := io.Copy(io.Discard, ready); err != nil {
		return 0, err
	}
	if err := ready.Close(); err != nil {
		return 0, err
	}
	c.Stage = stageTest
	env, err := c.env()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command("/proc/self/exe", append([]string{"-test.v=test2json"}, c.Args...)...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = env
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	return cmd.Process.Pid, nil
}

// linkUp brings a link up (netdevice(7), SIOCSIFFLAGS).
func linkUp(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("bring %s up: %w", name, err)
	}
	return nil
}
