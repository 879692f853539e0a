// Package signals reads the names of signals, and passes on to a program in a
// container those that its caller gets.
package signals

import (
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"

	"shocker.sh/shocker-run/internal/container"
	"shocker.sh/shocker-run/internal/stdio"
)

// forwarded are the signals that a caller means for the program. SIGCHLD,
// SIGURG, SIGPIPE and those that stop and continue are our own.
var forwarded = []os.Signal{
	unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGWINCH,
}

// impatience is how often SIGINT and SIGTERM have to come until the program is
// killed: as the first process of a pid namespace it hears only those signals
// that it handles (pid_namespaces(7)).
const impatience = 3

// Caught are the signals that come to us while a program is started and runs.
type Caught struct {
	ch, broken chan os.Signal
	done       chan struct{}
	once       sync.Once
	idle       sync.WaitGroup
}

// Catch begins to collect signals: those that come before the program runs
// are not lost.
func Catch() *Caught {
	s := &Caught{ch: make(chan os.Signal, 16), broken: make(chan os.Signal, 1), done: make(chan struct{})}
	for _, sig := range forwarded {
		if !signal.Ignored(sig) { // nohup
			signal.Notify(s.ch, sig)
		}
	}
	// A reader of our stdout that goes away is an error of a write, and must
	// not end us before the program.
	signal.Notify(s.broken, unix.SIGPIPE)
	return s
}

// Forward passes the signals on to the program until Stop. streams may be nil.
func (s *Caught) Forward(c *container.Container, streams *stdio.Streams) {
	s.idle.Go(func() {
		urgent := 0
		for {
			select {
			case <-s.done:
				return
			case sig := <-s.ch:
				if sig == unix.SIGWINCH && streams != nil {
					_ = streams.Resize() // the next one comes
					continue
				}
				if sig == unix.SIGINT || sig == unix.SIGTERM {
					urgent++
				}
				if urgent == impatience {
					sig = unix.SIGKILL
				}
				_ = c.Signal(sig.(unix.Signal)) // it has ended: nothing to do
			}
		}
	})
}

// Stop leaves signals to others again.
func (s *Caught) Stop() {
	s.once.Do(func() {
		close(s.done)
		s.idle.Wait()
		go func() { // each is two changes of threads, and we may be about to end
			signal.Stop(s.ch)
			signal.Stop(s.broken)
		}()
	})
}
