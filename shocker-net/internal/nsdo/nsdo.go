// Package nsdo runs code in another network namespace.
package nsdo

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Do calls f on a thread that is in the given network namespace. The thread
// ends with f: it is not used for anything else.
func Do(ns *os.File, f func() error) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the runtime ends the thread with the goroutine.
		runtime.LockOSThread()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- &os.PathError{Op: "join network namespace", Path: ns.Name(), Err: err}
			return
		}
		done <- f()
	}()
	return <-done
}
