package group

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Become moves the calling process into the group and makes it the program, by
// execve(2). It returns only on failure: before anything was done, in some
// hierarchies of v1, or with ErrExec when the program was the problem.
//
// A Go process has more threads than many a limit allows, and its runtime dies
// when it wants one more and does not get it. So all is prepared before, and
// the last steps are raw system calls, which the scheduler does not see.
func (g *Group) Become(program string, args, env []string) error {
	frozen, err := g.Frozen()
	if err != nil {
		return err
	}
	if frozen {
		return fmt.Errorf("%s: %w", g.Path, ErrFrozen)
	}
	doors, err := g.open()
	if err != nil {
		return err
	}
	debug.SetGCPercent(-1) // collecting would start threads
	spareThreads()
	runtime.GOMAXPROCS(1) // and that one is ours: none is left that a new thread could serve
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self := []byte("0")
	for _, d := range doors {
		for {
			_, _, errno := unix.RawSyscall(unix.SYS_WRITE, d.Fd(), uintptr(unsafe.Pointer(&self[0])), uintptr(len(self)))
			if errno == unix.EINTR {
				continue
			}
			if errno != 0 {
				return fmt.Errorf("enter %s: %w", d.Name(), errno)
			}
			break
		}
	}
	return fmt.Errorf("%w: %w", ErrExec, unix.Exec(program, args, env))
}

// open opens the way into the group in every hierarchy. In v1 one thread can go
// by itself, and take the process with it when it executes; in v2 the whole
// process must.
func (g *Group) open() ([]*os.File, error) {
	var doors []*os.File
	for _, h := range g.Hierarchies {
		file := "tasks"
		if h.Version == 2 {
			file = "cgroup.procs"
		}
		f, err := os.OpenFile(filepath.Join(g.In(h), file), os.O_WRONLY, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		doors = append(doors, f)
	}
	if len(doors) == 0 {
		return nil, fmt.Errorf("%s: %w", g.Path, ErrGone)
	}
	return doors, nil
}

// spareThreads has the runtime make threads that then idle, for when it wants
// one after the limit acts.
func spareThreads() {
	const spare = 4
	var there, gone sync.WaitGroup
	there.Add(spare)
	for range spare {
		gone.Go(func() {
			runtime.LockOSThread() // keeps this thread from the others
			defer runtime.UnlockOSThread()
			there.Done()
			there.Wait()
		})
	}
	gone.Wait()
}
