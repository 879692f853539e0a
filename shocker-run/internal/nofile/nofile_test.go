package nofile_test

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"shocker.sh/shocker-run/internal/nofile"
)

func TestMain(m *testing.M) {
	if os.Getenv("NOFILE_PRINT") != "" {
		var now syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &now); err != nil {
			panic(err)
		}
		soft, hard := nofile.Inherited()
		fmt.Println(soft, hard, now.Cur != soft)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A process that was started with 777 says so, though Go has raised it.
func TestInherited(t *testing.T) {
	cmd := exec.Command("sh", "-c", `ulimit -Sn 777; ulimit -Hn 2000; exec "$0"`, os.Args[0])
	cmd.Env = append(os.Environ(), "NOFILE_PRINT=1")
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "777 2000 true\n" {
		t.Errorf("inherited limit: %q, %v; want 777 2000, and Go's own to differ", out, err)
	}
}
