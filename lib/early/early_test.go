package early_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"syscall"
	"testing"
	"unsafe"

	"shocker.sh/lib/early"
)

func TestMain(m *testing.M) {
	if os.Getenv("EARLY_PRINT") != "" {
		var now syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &now); err != nil {
			panic(err)
		}
		soft, hard := early.Nofile()
		fmt.Println(soft, hard, now.Cur != soft)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A process that was started with 777 says so, though Go has raised it.
func TestNofile(t *testing.T) {
	cmd := exec.Command("sh", "-c", `ulimit -Sn 777; ulimit -Hn 2000; exec "$0"`, os.Args[0])
	cmd.Env = append(os.Environ(), "EARLY_PRINT=1")
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "777 2000 true\n" {
		t.Errorf("inherited limit: %q, %v; want 777 2000, and Go's own to differ", out, err)
	}
}

// The pages behind the first object are all there, though hardly any of them
// has been written to: bit 63 of their entries (proc_pid_pagemap(5)).
func TestPopulate(t *testing.T) {
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	begin := early.First() / 4096
	end := min(begin+384, (begin/1024+1)*1024)
	entries := make([]byte, 8*(end-begin))
	if _, err := f.ReadAt(entries, int64(begin)*8); err != nil {
		t.Fatal(err)
	}
	for i := begin; i < end; i++ {
		if binary.NativeEndian.Uint64(entries[8*(i-begin):])>>63 == 0 {
			t.Errorf("page %d of %d is not there", i-begin, end-begin)
		}
	}
}

// The names of the linker stand for a range that can be mapped, and holds code
// and constants.
func TestMapProgram(t *testing.T) {
	begin, end := early.Program()
	code := reflect.ValueOf(TestMapProgram).Pointer()
	constant := uintptr(unsafe.Pointer(unsafe.StringData("a constant")))
	if code < begin || code >= end || constant < begin || constant >= end {
		t.Errorf("the program is from %#x to %#x; there is code at %#x, a constant at %#x", begin, end, code, constant)
	}
	if !early.MapProgram() {
		t.Error("it cannot be mapped")
	}
}
