package testkit

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// startSlirp gives the network namespace of pid a way to the outside: tap0
// with 10.0.2.100/24, gateway 10.0.2.2, names at 10.0.2.3 (slirp4netns(1)).
func startSlirp(pid int) (stop func(), err error) {
	ready, up, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer ready.Close()
	var talk bytes.Buffer
	cmd := exec.Command("slirp4netns", "--configure", "--mtu=1500", "--disable-host-loopback", "--ready-fd=3", strconv.Itoa(pid), "tap0")
	cmd.Stdout, cmd.Stderr = &talk, &talk
	cmd.ExtraFiles = []*os.File{up}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = cmd.Start()
	up.Close()
	if err != nil {
		return nil, err
	}
	stop = func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
	if _, err := ready.Read(make([]byte, 1)); err != nil { // its end: it died
		stop()
		return nil, fmt.Errorf("slirp4netns: %w: %s", err, talk.Bytes())
	}
	return stop, nil
}
