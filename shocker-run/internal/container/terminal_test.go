package container

import (
	"context"
	"io"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// The terminal has its size before the program looks, and is /dev/console, also
// without a mount namespace.
func TestConsoleSize(t *testing.T) {
	root := busyboxRoot(t)
	for _, ownMounts := range []bool{true, false} {
		spec := config(root, "sh", "-c", "stty size; stty size </dev/console")
		if !ownMounts {
			withoutUser(spec)
			withoutMounts(spec)
		}
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
		if status, err := c.Wait(); err != nil || status != 0 || string(out) != "33 77\r\n33 77\r\n" {
			t.Errorf("stty size: %q, status %d, %v; want 33 77, twice", out, status, err)
		}
	}
}
