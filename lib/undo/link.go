package undo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// deleteLink deletes a network interface by RTM_DELLINK (rtnetlink(7)), if
// name still has that index (0: any). One message does not pay a library.
func deleteLink(name string, index int) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	now, err := indexOf(name)
	if err != nil || now == 0 || index != 0 && now != index {
		return err
	}
	var msg [unix.NLMSG_HDRLEN + unix.SizeofIfInfomsg]byte
	native := binary.NativeEndian
	native.PutUint32(msg[0:], uint32(len(msg)))
	native.PutUint16(msg[4:], unix.RTM_DELLINK)
	native.PutUint16(msg[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	native.PutUint32(msg[unix.NLMSG_HDRLEN+4:], uint32(now))
	if err := unix.Sendto(fd, msg[:], 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	var reply [4096]byte
	n, _, err := unix.Recvfrom(fd, reply[:], 0)
	if err != nil {
		return os.NewSyscallError("recvfrom", err)
	}
	if n < unix.NLMSG_HDRLEN+4 {
		return fmt.Errorf("delete interface %s: short answer of the kernel", name)
	}
	errno := unix.Errno(-int32(native.Uint32(reply[unix.NLMSG_HDRLEN:])))
	if errno != 0 && !errors.Is(errno, unix.ENODEV) {
		return fmt.Errorf("delete interface %s: %w", name, errno)
	}
	return nil
}

// indexOf returns the index of a network interface, 0 if there is none.
func indexOf(name string) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return 0, fmt.Errorf("interface name %q: %w", name, err)
	}
	err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req)
	if errors.Is(err, unix.ENODEV) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look up interface %s: %w", name, err)
	}
	return int(req.Uint32()), nil
}
