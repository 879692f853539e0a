package container

import (
	"context"
	"io"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// The terminal has its size before the program looks.
func TestConsoleSize(t *testing.T) {
	root := busyboxRoot(t)
	spec := config(root, "stty", "size")
	spec.Process.Terminal = true
	spec.Process.ConsoleSize = &specs.Box{Height: 33, Width: 77}
	c, err := Create(context.Background(), spec, Options{ID: "test", Bundle: t.TempDir(), MapRoot: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	defer c.Console.Close()
	if err := c.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	out, _ := io.ReadAll(c.Console) // EIO, when nobody holds the other side any more
	if status, err := c.Wait(); err != nil || status != 0 || strings.TrimSpace(string(out)) != "33 77" {
		t.Errorf("stty size: %q, status %d, %v; want 33 77", out, status, err)
	}
}
