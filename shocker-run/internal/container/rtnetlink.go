package container

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/sys"
)

// rtnetlink is a socket of one network namespace (rtnetlink(7)).
type rtnetlink struct{ f *os.File }

// ownNet opens a socket of our own network namespace.
func ownNet() (rtnetlink, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return rtnetlink{}, os.NewSyscallError("socket", err)
	}
	return rtnetlink{os.NewFile(uintptr(fd), "rtnetlink")}, nil
}

// attribute puts one attribute of a message behind others.
func attribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	for len(b)%unix.RTA_ALIGNTO != 0 {
		b = append(b, 0)
	}
	return b
}

// linkMessage is a struct ifinfomsg.
func linkMessage(index int32, flags, change uint32) []byte {
	b := make([]byte, 4) // family, padding, type
	b = binary.NativeEndian.AppendUint32(b, uint32(index))
	b = binary.NativeEndian.AppendUint32(b, flags)
	return binary.NativeEndian.AppendUint32(b, change)
}

// request sends one message and returns what is answered to it.
func (r rtnetlink) request(kind, flags uint16, body []byte) ([]syscall.NetlinkMessage, error) {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|flags)
	b = append(b, make([]byte, 8)...) // sequence number, port
	b = append(b, body...)
	fd := int(r.f.Fd())
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, os.NewSyscallError("sendto", err)
	}
	var answers []syscall.NetlinkMessage
	for {
		part, done, err := r.receive(fd)
		answers = append(answers, part...)
		if done || err != nil {
			return answers, err
		}
	}
}

// receive reads one datagram of an answer; done tells that it was the last.
func (r rtnetlink) receive(fd int) (messages []syscall.NetlinkMessage, done bool, _ error) {
	buf := make([]byte, 64<<10)
	var n int
	err := sys.Retry(func() (err error) {
		n, _, err = unix.Recvfrom(fd, buf, 0)
		return err
	})
	if err != nil {
		return nil, false, os.NewSyscallError("recvfrom", err)
	}
	all, err := syscall.ParseNetlinkMessage(buf[:n])
	if err != nil {
		return nil, false, err
	}
	for _, m := range all {
		switch m.Header.Type {
		case unix.NLMSG_DONE:
			return messages, true, nil
		case unix.NLMSG_ERROR:
			if len(m.Data) < 4 {
				return nil, false, errors.New("rtnetlink: an answer that is cut")
			}
			if errno := int32(binary.NativeEndian.Uint32(m.Data)); errno != 0 {
				return nil, true, unix.Errno(-errno)
			}
			return messages, true, nil
		}
		messages = append(messages, m)
	}
	return messages, false, nil
}

// change sends a message that changes something.
func (r rtnetlink) change(kind, flags uint16, body []byte) error {
	_, err := r.request(kind, unix.NLM_F_ACK|flags, body)
	return err
}

// links are the interfaces of the namespace, by their index.
func (r rtnetlink) links() (map[int32]string, error) {
	messages, err := r.request(unix.RTM_GETLINK, unix.NLM_F_DUMP, linkMessage(0, 0, 0))
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	names := make(map[int32]string)
	for _, m := range messages {
		attrs, err := syscall.ParseNetlinkRouteAttr(&m)
		if err != nil || len(m.Data) < unix.SizeofIfInfomsg {
			return nil, fmt.Errorf("list interfaces: an answer that is cut: %w", errors.Join(err, unix.EBADMSG))
		}
		for _, a := range attrs {
			if a.Attr.Type == unix.IFLA_IFNAME {
				names[int32(binary.NativeEndian.Uint32(m.Data[4:]))] = unix.ByteSliceToString(a.Value)
			}
		}
	}
	return names, nil
}

// kept are the attributes of an address that it takes along.
var kept = map[uint16]bool{
	unix.IFA_ADDRESS: true, unix.IFA_LOCAL: true, unix.IFA_BROADCAST: true, unix.IFA_FLAGS: true, unix.IFA_RT_PRIORITY: true,
}

// addresses are the permanent ones of global scope of an interface, each as the
// body of the message that adds it to the interface with another index.
func (r rtnetlink) addresses(index int32) (func(index int32) [][]byte, error) {
	messages, err := r.request(unix.RTM_GETADDR, unix.NLM_F_DUMP, make([]byte, unix.SizeofIfAddrmsg))
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var all [][]byte
	for _, m := range messages {
		attrs, err := syscall.ParseNetlinkRouteAttr(&m)
		if err != nil || len(m.Data) < unix.SizeofIfAddrmsg {
			return nil, fmt.Errorf("list addresses: an answer that is cut: %w", errors.Join(err, unix.EBADMSG))
		}
		flags, scope := m.Data[2], m.Data[3]
		if int32(binary.NativeEndian.Uint32(m.Data[4:])) != index || flags&unix.IFA_F_PERMANENT == 0 || scope != unix.RT_SCOPE_UNIVERSE {
			continue
		}
		body := append([]byte{}, m.Data[:unix.SizeofIfAddrmsg]...)
		for _, a := range attrs {
			if kept[a.Attr.Type] {
				body = attribute(body, a.Attr.Type, a.Value)
			}
		}
		all = append(all, body)
	}
	return func(index int32) [][]byte {
		for _, body := range all {
			binary.NativeEndian.PutUint32(body[4:], uint32(index))
		}
		return all
	}, nil
}
