package testkit

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// mountLoop mounts the btrfs in file on target. The loop device goes when the
// last mount of it does (loop(4), LO_FLAGS_AUTOCLEAR).
func mountLoop(file, target string) error {
	back, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer back.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer control.Close()
	config := unix.LoopConfig{Fd: uint32(back.Fd())}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return os.NewSyscallError("LOOP_CTL_GET_FREE", err)
		}
		dev, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &config)
		if errors.Is(err, unix.EBUSY) { // another test was faster
			dev.Close()
			continue
		}
		if err == nil {
			err = mount(dev.Name(), target, "btrfs", unix.MS_NODEV|unix.MS_NOATIME, "")
		}
		return errors.Join(err, dev.Close())
	}
}
