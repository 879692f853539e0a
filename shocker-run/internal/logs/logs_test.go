package logs

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func write(t *testing.T, path string, pieces ...string) {
	t.Helper()
	w, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pieces {
		stream, text, _ := strings.Cut(p, ":")
		w.Write(stream, []byte(text))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string, o Options) (string, string) {
	t.Helper()
	var out, errOut bytes.Buffer
	if err := Read(path, &out, &errOut, o); err != nil {
		t.Fatal(err)
	}
	return out.String(), errOut.String()
}

func TestFormat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	write(t, path, "stdout:one\ntwo", "stderr:\n")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const stamp = `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z`
	want := regexp.MustCompile("^" + stamp + " stdout F one\n" + stamp + " stdout P two\n" + stamp + " stderr F \n$")
	if !want.Match(data) {
		t.Errorf("log is %q; want it to match %s", data, want)
	}
}

// Whatever is written, in whatever pieces, comes back byte for byte, and the
// streams apart.
func TestExactBytes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	r := rand.New(rand.NewPCG(1, 2))
	want := map[string]*bytes.Buffer{Stdout: {}, Stderr: {}}
	w, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for range 500 {
		stream := []string{Stdout, Stderr}[r.IntN(2)]
		p := make([]byte, r.IntN(300))
		for i := range p {
			p[i] = "ab \n\r\x00\xff"[r.IntN(7)]
		}
		w.Write(stream, p)
		want[stream].Write(p)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	out, errOut := read(t, path, Options{Tail: -1})
	if out != want[Stdout].String() || errOut != want[Stderr].String() {
		t.Error("what was read is not what was written")
	}
}

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	long := strings.Repeat("x", 100_000)
	write(t, path, "stdout:a\nb\n", "stdout:"+long+"\n", "stdout:c", "stdout:d\n", "stdout:e")
	for _, test := range []struct {
		n    int
		want string
	}{
		{-1, "a\nb\n" + long + "\ncd\ne"},
		{0, ""},
		{1, "e"},
		{2, "cd\ne"},
		{3, long + "\ncd\ne"},
		{4, "b\n" + long + "\ncd\ne"},
		{5, "a\nb\n" + long + "\ncd\ne"},
		{99, "a\nb\n" + long + "\ncd\ne"},
	} {
		if out, _ := read(t, path, Options{Tail: test.n}); out != test.want {
			t.Errorf("tail %d = %.20q (%d bytes); want %.20q (%d bytes)", test.n, out, len(out), test.want, len(test.want))
		}
	}
}

func TestTimestamps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	write(t, path, "stdout:a", "stdout:b\nc\n")
	out, _ := read(t, path, Options{Tail: -1, Timestamps: true})
	if !regexp.MustCompile(`^\S+Z ab\n\S+Z c\n$`).MatchString(out) {
		t.Errorf("with time stamps: %q", out)
	}
}

func TestFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	write(t, path, "stdout:0\n")
	done := make(chan struct{})
	pr, pw := io.Pipe()
	result := make(chan error, 1)
	go func() {
		err := Read(path, pw, io.Discard, Options{Tail: -1, Follow: done})
		pw.Close()
		result <- err
	}()
	buf := make([]byte, 2)
	for i := range 5 {
		if _, err := io.ReadFull(pr, buf); err != nil || string(buf) != fmt.Sprintf("%d\n", i) {
			t.Fatalf("followed %q, %v; want line %d", buf, err, i)
		}
		if i < 4 {
			write(t, path, fmt.Sprintf("stdout:%d\n", i+1))
		}
	}
	write(t, path, "stdout:end")
	close(done)
	rest, err := io.ReadAll(pr)
	if err != nil || string(rest) != "end" {
		t.Errorf("at the end: %q, %v; want the last piece", rest, err)
	}
	if err := <-result; err != nil {
		t.Error(err)
	}
}

func TestNotALog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("hello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Read(path, io.Discard, io.Discard, Options{Tail: -1}); err == nil {
		t.Error("a line that is no entry was accepted")
	}
}
