package undo

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func file(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func push(t *testing.T, l *Log, e Entry) *Entry {
	t.Helper()
	if err := l.Push(&e); err != nil {
		t.Fatal(err)
	}
	return &e
}

func ops(t *testing.T, l *Log) string {
	t.Helper()
	entries, err := l.Entries()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Stage+":"+e.Class)
	}
	return strings.Join(names, " ")
}

func TestReplayPicksByStageAndClass(t *testing.T) {
	l := Open(t.TempDir())
	for _, e := range []Entry{
		{Stage: "a", Class: Exit}, {Stage: "a", Class: Rm}, {Stage: "b", Class: Exit}, {Stage: "b", Class: Rm},
	} {
		e.Op, e.Path = OpUnlink, "/nowhere"
		push(t, l, e)
	}
	for _, test := range []struct {
		stage   string
		classes []string
		left    string
	}{
		{"c", nil, "a:exit a:rm b:exit b:rm"},
		{"b", []string{Exit}, "a:exit a:rm b:rm"},
		{"", []string{Exit}, "a:rm b:rm"},
		{"a", nil, "b:rm"},
		{"", nil, ""},
		{"", nil, ""},
	} {
		if err := l.Replay(test.stage, test.classes...); err != nil {
			t.Fatal(err)
		}
		if got := ops(t, l); got != test.left {
			t.Errorf("after Replay(%q, %v): %q; want %q", test.stage, test.classes, got, test.left)
		}
	}
}

func TestReplayIsNewestFirst(t *testing.T) {
	dir := t.TempDir()
	inner := filepath.Join(dir, "outer", "inner")
	if err := os.MkdirAll(inner, 0o700); err != nil {
		t.Fatal(err)
	}
	l := Open(filepath.Join(dir, "run"))
	// As a file, the outer one can only go when the inner one has.
	push(t, l, Entry{Stage: "a", Class: Rm, Op: OpUnmount, Path: filepath.Dir(inner)})
	push(t, l, Entry{Stage: "a", Class: Rm, Op: OpUnmount, Path: inner})
	if err := l.Replay(""); err != nil {
		t.Error(err)
	}
}

func TestWhatFailsStays(t *testing.T) {
	dir := t.TempDir()
	l := Open(filepath.Join(dir, "run"))
	push(t, l, Entry{Stage: "a", Class: Rm, Op: OpUnlink, Path: file(t, filepath.Join(dir, "x"), "me"), Data: "me"})
	push(t, l, Entry{Stage: "b", Class: Rm, Op: "of another version"})
	if err := l.Replay(""); err == nil {
		t.Error("an operation that is not known succeeded")
	}
	if got := ops(t, l); got != "b:rm" {
		t.Errorf("left: %q; want the entry that failed, and only that", got)
	}
}

func TestOthersThingsStay(t *testing.T) {
	dir := t.TempDir()
	lease := file(t, filepath.Join(dir, "lease"), "ps_2")
	tree := filepath.Join(dir, "tree")
	if err := os.Mkdir(tree, 0o700); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(tree, &st); err != nil {
		t.Fatal(err)
	}
	l := Open(filepath.Join(dir, "run"))
	push(t, l, Entry{Stage: "a", Class: Rm, Op: OpUnlink, Path: lease, Data: "ps_1"})
	push(t, l, Entry{Stage: "a", Class: Rm, Op: OpRemove, Path: tree, Ino: st.Ino + 1})
	push(t, l, Entry{Stage: "a", Class: Rm, Op: OpLink, Name: "lo", Index: 4711})
	if err := l.Replay(""); err != nil {
		t.Error(err)
	}
	for _, path := range []string{lease, tree} {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("somebody else's: %v", err)
		}
	}
}

func TestDownOfAForeignStage(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	program := file(t, filepath.Join(dir, "stage"), "#!/bin/sh\n{ echo $1; cat; } >"+dir+"/got\n")
	l := Open(filepath.Join(dir, "run"))
	push(t, l, Entry{Stage: "a", Class: Rm, Op: OpDown, Args: []string{program, "down"}, Record: []byte(`{"x":1}`)})
	if err := l.Replay(""); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(dir + "/got"); err != nil || string(got) != "down\n{\"x\":1}\n" {
		t.Errorf("the stage got %q, %v", got, err)
	}
	if err := os.Chmod(program, 0o777); err != nil {
		t.Fatal(err)
	}
	push(t, l, Entry{Stage: "a", Class: Rm, Op: OpDown, Args: []string{program, "down"}})
	if err := l.Replay(""); err == nil {
		t.Error("a program that others may write was executed")
	}
}

func TestBusy(t *testing.T) {
	run := filepath.Join(t.TempDir(), "ps_1")
	l := Open(run)
	b, err := l.Take("shocker-spec")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Take("shocker-spec"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Take of what is taken: %v; want ErrExist", err)
	}
	working := func(live, died bool) {
		t.Helper()
		gotLive, gotDied, err := l.Working()
		if gotLive != live || gotDied != died || err != nil {
			t.Errorf("Working() = %v, %v, %v; want %v, %v", gotLive, gotDied, err, live, died)
		}
	}
	working(true, false)
	if err := b.Done(); err != nil {
		t.Fatal(err)
	}
	working(false, false)

	// A command that is killed leaves its mark, and its lock goes.
	path := filepath.Join(run, "busy", "shocker-net")
	script := "exec 9>" + path + "; flock 9; kill -9 $$"
	if err := exec.Command("bash", "-c", script).Run(); err == nil {
		t.Fatal("the shell was not killed")
	}
	working(false, true)
	// The next stage has the record, so the one before it was done with it.
	if b, err = l.Begin("shocker-cg"); err != nil {
		t.Fatal(err)
	}
	working(true, false)
	if err := b.Done(); err != nil {
		t.Fatal(err)
	}
	working(false, false)
}
