package logs

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// follow prints what is in f and what is added to it until done is closed,
// woken by inotify(7).
func (p *printer) follow(f *os.File, done <-chan struct{}) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("follow log: %w", os.NewSyscallError("inotify_init1", err))
	}
	watch := os.NewFile(uintptr(fd), "inotify")
	defer watch.Close()
	if _, err := unix.InotifyAddWatch(fd, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.IN_MODIFY); err != nil {
		return fmt.Errorf("follow log: %w", os.NewSyscallError("inotify_add_watch", err))
	}
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-done:
			// Ends the wait below, then and in future.
			_ = watch.SetReadDeadline(time.Unix(1, 0))
		case <-stop:
		}
	}()

	r := bufio.NewReaderSize(f, 64<<10)
	var entry []byte // the beginning of one
	for last := false; ; {
		for {
			part, err := r.ReadSlice('\n')
			entry = append(entry, part...)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
				return fmt.Errorf("follow log: %w", err)
			}
			if !bytes.HasSuffix(entry, []byte("\n")) {
				continue
			}
			if err := p.entry(entry); err != nil {
				return err
			}
			entry = entry[:0]
		}
		if last {
			return nil
		}
		events := make([]byte, 4096)
		_, err := watch.Read(events)
		last = errors.Is(err, os.ErrDeadlineExceeded) // read once more: nothing comes after
		if err != nil && !last {
			return fmt.Errorf("follow log: %w", err)
		}
	}
}
