package sys

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// ReadKernel reads a file that the kernel makes up (procfs, cgroupfs). Most of
// these can be polled, and os.ReadFile has Go's poller woken for each: on
// another processor, for nothing.
func ReadKernel(path string) ([]byte, error) {
	fd, err := openKernel(path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	data := make([]byte, 0, 1024)
	for {
		if len(data) == cap(data) {
			data = append(data, 0)[:len(data)]
		}
		var n int
		err := Retry(func() (err error) {
			n, err = unix.Read(fd, data[len(data):cap(data)])
			return err
		})
		if err != nil {
			return nil, &os.PathError{Op: "read", Path: path, Err: err}
		}
		if n == 0 {
			return data, nil
		}
		data = data[:len(data)+n]
	}
}

// WriteKernel writes to such a file in one write. It is never made: what is
// written is a command to the kernel, and would be nothing in a file of ours.
func WriteKernel(path, value string) error {
	fd, err := openKernel(path, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var n int
	err = Retry(func() (err error) {
		n, err = unix.Write(fd, []byte(value))
		return err
	})
	if err == nil && n < len(value) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return &os.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

func openKernel(path string, flags int) (fd int, err error) {
	err = Retry(func() (err error) {
		fd, err = unix.Open(path, flags|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}
