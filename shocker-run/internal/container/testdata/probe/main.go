// Command probe makes the system calls that its arguments name, each
// NUMBER[,ARGUMENT...] in hexadecimal, and prints what comes of them. After "k"
// a process of one thread makes the call, and may be killed for it.
package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

func main() {
	for _, call := range os.Args[1:] {
		var a [7]uintptr
		text, mayDie := strings.CutPrefix(call, "k")
		for i, field := range strings.Split(text, ",") {
			n, err := strconv.ParseUint(field, 16, 64)
			if err != nil {
				panic(err)
			}
			a[i] = uintptr(n)
		}
		if mayDie {
			pid, _, errno := syscall.RawSyscall(syscall.SYS_FORK, 0, 0, 0)
			if errno != 0 {
				panic(errno)
			}
			if pid == 0 {
				_, _, errno := syscall.RawSyscall6(a[0], a[1], a[2], a[3], a[4], a[5], a[6])
				syscall.RawSyscall(syscall.SYS_EXIT_GROUP, uintptr(errno), 0, 0)
			}
			var status syscall.WaitStatus
			if _, err := syscall.Wait4(int(pid), &status, 0, nil); err != nil {
				panic(err)
			}
			fmt.Println(call, status.ExitStatus(), status.Signal())
			continue
		}
		result, _, errno := syscall.RawSyscall6(a[0], a[1], a[2], a[3], a[4], a[5], a[6])
		if errno != 0 {
			fmt.Println(call, errno.Error())
		} else {
			fmt.Println(call, int(result))
		}
	}
}
