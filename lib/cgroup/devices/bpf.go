package devices

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/sys"
)

// bpf(2), as far as it is needed to put a program on a cgroup. The structs are
// the parts of union bpf_attr in <linux/bpf.h> that each command reads; the
// kernel takes what is missing at the end as 0.

// programName marks our program among those that others, systemd say, have
// put on the same cgroup. A device must be allowed by all of them.
const programName = "shocker_devices"

func bpf(command uintptr, attr unsafe.Pointer, size uintptr) (int, error) {
	var fd uintptr
	err := sys.Retry(func() error {
		r, _, errno := unix.Syscall(unix.SYS_BPF, command, uintptr(attr), size)
		fd = r
		if errno != 0 {
			return errno
		}
		return nil
	})
	return int(fd), err
}

// pointer is an address for the kernel. What it points to must be pinned.
func pointer(p unsafe.Pointer) uint64 { return uint64(uintptr(p)) }

func loadProgram(p []insn) (int, error) {
	license := []byte("GPL\x00")
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&p[0])
	pin.Pin(&license[0])
	attr := struct {
		kind, count    uint32
		insns, license uint64
		_              [6]uint32 // verifier's log, kernel version, flags
		name           [unix.BPF_OBJ_NAME_LEN]byte
	}{
		kind:    unix.BPF_PROG_TYPE_CGROUP_DEVICE,
		count:   uint32(len(p)),
		insns:   pointer(unsafe.Pointer(&p[0])),
		license: pointer(unsafe.Pointer(&license[0])),
	}
	copy(attr.name[:unix.BPF_OBJ_NAME_LEN-1], programName)
	fd, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if err != nil {
		return -1, fmt.Errorf("load the device filter (%d instructions): %w", len(p), err)
	}
	return fd, nil
}

// attach puts a program on a cgroup beside those that are there (kernel 4.15),
// or in place of one (5.6).
func attach(cgroup *os.File, program, replace int) error {
	attr := struct{ cgroup, program, kind, flags, replace uint32 }{
		cgroup:  uint32(cgroup.Fd()),
		program: uint32(program),
		kind:    unix.BPF_CGROUP_DEVICE,
		flags:   unix.BPF_F_ALLOW_MULTI,
	}
	if replace >= 0 {
		attr.flags |= unix.BPF_F_REPLACE
		attr.replace = uint32(replace)
	}
	if _, err := bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); err != nil {
		return fmt.Errorf("attach the device filter to %s: %w", cgroup.Name(), err)
	}
	return nil
}

// maxPrograms is how many programs of a kind the kernel lets a cgroup have.
const maxPrograms = 64

// attached returns our program on a cgroup, or -1.
func attached(cgroup *os.File) (program int, tag [8]byte, err error) {
	ids := make([]uint32, maxPrograms)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&ids[0])
	attr := struct {
		cgroup, kind uint32
		_            [2]uint32 // flags
		ids          uint64
		count        uint32
		_            uint32
		_            [3]uint64
		// Kernels from 6.17 on write this field whatever size they are told.
		_ uint64
	}{
		cgroup: uint32(cgroup.Fd()),
		kind:   unix.BPF_CGROUP_DEVICE,
		ids:    pointer(unsafe.Pointer(&ids[0])),
		count:  maxPrograms,
	}
	if _, err := bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); err != nil {
		return -1, tag, fmt.Errorf("list the device filters of %s: %w", cgroup.Name(), err)
	}
	for _, id := range ids[:min(attr.count, maxPrograms)] {
		byID := struct{ id, next, flags uint32 }{id: id}
		fd, err := bpf(unix.BPF_PROG_GET_FD_BY_ID, unsafe.Pointer(&byID), unsafe.Sizeof(byID))
		if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOENT) {
			continue // somebody else's, kept from us by an LSM, or just gone
		}
		if err != nil {
			return -1, tag, fmt.Errorf("look at device filter %d: %w", id, err)
		}
		name, tag, err := identify(fd)
		if err == nil && name == programName {
			return fd, tag, nil
		}
		if err := errors.Join(err, unix.Close(fd)); err != nil {
			return -1, tag, err
		}
	}
	return -1, tag, nil
}

// identify returns a program's name and tag, a hash of its instructions.
func identify(program int) (name string, tag [8]byte, err error) {
	var info struct {
		_    [2]uint32 // type, id
		tag  [8]byte
		_    [2]uint32 // lengths
		_    [3]uint64 // instructions, load time
		_    [2]uint32 // uid, count of maps
		_    uint64    // maps
		name [unix.BPF_OBJ_NAME_LEN]byte
	}
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&info)
	attr := struct {
		fd, size uint32
		info     uint64
	}{uint32(program), uint32(unsafe.Sizeof(info)), pointer(unsafe.Pointer(&info))}
	if _, err := bpf(unix.BPF_OBJ_GET_INFO_BY_FD, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); err != nil {
		return "", tag, fmt.Errorf("look at a device filter: %w", err)
	}
	return unix.ByteSliceToString(info.name[:]), info.tag, nil
}
