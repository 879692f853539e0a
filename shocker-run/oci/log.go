package oci

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/applet"
)

// logger writes messages as engines read them: a line of JSON with level, msg
// and time, or the same as text.
type logger struct {
	w      io.Writer // nil: none is asked for
	stderr io.Writer
	json   bool
	debug  bool
}

func (l *logger) open(path, format string, debug bool, stderr io.Writer) error {
	switch format {
	case "text":
	case "json":
		l.json = true
	default:
		return applet.Usagef("--log-format %q: want text or json", format)
	}
	l.debug, l.stderr = debug, stderr
	if debug {
		l.w = stderr
	}
	if path == "" {
		return nil
	}
	// A FIFO that nobody reads is no log to wait for.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|unix.O_NONBLOCK, 0o644)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	l.w = f // open to the end
	return nil
}

// failed writes the error that the program ends with. Without a log file it
// goes to stderr only, as with all programs of Shocker.
func (l *logger) failed(err error) {
	if _, isFile := l.w.(*os.File); err == nil || !isFile || l.w == io.Writer(os.Stderr) {
		return
	}
	if exit, ok := err.(*applet.ExitError); ok && exit.Err == nil {
		return
	}
	l.write("error", applet.Escape(err.Error()))
}

func (l *logger) debugf(format string, a ...any) {
	if l.debug {
		l.write("debug", fmt.Sprintf(format, a...))
	}
}

// warn tells of something that somebody asked for and does not get, or that
// went wrong and stops nothing.
func (l *logger) warn(msg string) {
	if l.w == nil {
		l.say(msg)
	}
	l.note(msg)
}

// note warns in the log alone, and nobody if there is none.
func (l *logger) note(msg string) {
	if l.w != nil {
		l.write("warning", msg)
	}
}

// say warns whoever looks at stderr.
func (l *logger) say(msg string) {
	fmt.Fprintf(l.stderr, "%s: warning: %s\n", Name, applet.Escape(msg))
}

func (l *logger) write(level, msg string) {
	now := time.Now().Format(time.RFC3339)
	if !l.json {
		fmt.Fprintf(l.w, "time=%q level=%s msg=%q\n", now, level, msg)
		return
	}
	line, err := json.Marshal(struct {
		Level string `json:"level"`
		Msg   string `json:"msg"`
		Time  string `json:"time"`
	}{level, msg, now})
	if err == nil {
		_, _ = l.w.Write(append(line, '\n')) // a log that is full stops nothing
	}
}
