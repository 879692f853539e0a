package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/testkit"
)

// probeRoot is a root file system with a program that makes system calls.
func probeRoot(t *testing.T) string {
	t.Helper()
	root := busyboxRoot(t)
	cmd := exec.Command("go", "build", "-o", filepath.Join(root, "bin/probe"), "./testdata/probe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "HOME=/root")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the probe: %v: %s", err, out)
	}
	return root
}

// withSeccomp is a config with a profile: what is given, and what a Go program
// and, in runc, its start need.
func withSeccomp(t *testing.T, root, profile string, args ...string) *specs.Spec {
	t.Helper()
	spec := config(root, args...)
	if err := json.Unmarshal([]byte(profile), &spec.Linux.Seccomp); err != nil {
		t.Fatalf("%s: %v", profile, err)
	}
	spec.Linux.Seccomp.Syscalls = append(spec.Linux.Seccomp.Syscalls, specs.LinuxSyscall{
		Action: specs.ActAllow,
		Names: strings.Fields(`access arch_prctl brk capget capset chdir clone clone3 close close_range dup dup3 epoll_create1
			epoll_ctl epoll_pwait eventfd2 execve exit exit_group fork wait4 faccessat faccessat2 fchdir fcntl fstat fstatfs futex getcwd
			getdents64 getpid getrandom gettid getuid madvise mmap mprotect munmap nanosleep newfstatat openat pipe2 prctl
			prlimit64 read readlinkat rt_sigaction rt_sigprocmask rt_sigreturn sched_getaffinity set_robust_list
			setgid setgroups setresgid setresuid setuid sigaltstack tgkill uname unlinkat write rseq sched_yield umask`),
	})
	return spec
}

const onlyErrno = `"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"]`

// underRunc runs a config with Debian's runc.
func underRunc(t *testing.T, spec *specs.Spec) outcome {
	t.Helper()
	bundle := t.TempDir()
	// It id-maps no root.
	spec.Linux.UIDMappings, spec.Linux.GIDMappings = nil, nil
	spec.Linux.Namespaces = spec.Linux.Namespaces[1:]
	text, err := json.Marshal(spec)
	if err == nil {
		err = os.WriteFile(filepath.Join(bundle, "config.json"), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience(2*time.Minute))
	defer cancel()
	cmd := exec.CommandContext(ctx, "runc", "run", "--bundle", bundle, "seccomp")
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return outcome{cmd.ProcessState.ExitCode(), out.String(), errOut.String()}
}

// TestSeccompAsRunc: profiles say the same to the kernel in our hands and in
// runc's.
func TestSeccompAsRunc(t *testing.T) {
	testkit.Requires(t, "runc")
	testkit.Run(t, testkit.Options{NoStore: true}, func(t *testing.T, h *testkit.Host) {
		root := probeRoot(t)
		// getppid takes no arguments, so any do no harm. What is not of this
		// kernel comes last, and what kills after that.
		rule := func(action, args string) string {
			return `{"names":["getppid"],"action":"SCMP_ACT_` + action + `","args":[` + args + `]}`
		}
		arg := func(index int, op string, values ...uint64) string {
			return fmt.Sprintf(`{"index":%d,"op":"SCMP_CMP_%s","value":%d,"valueTwo":%d}`, index, op, values[0], append(values, 0)[1])
		}
		with := func(rules ...string) string {
			return `{` + onlyErrno + `,"syscalls":[` + strings.Join(rules, ",") + `]}`
		}
		killed := `{"defaultAction":"SCMP_ACT_KILL_PROCESS","architectures":["SCMP_ARCH_X86_64"],"syscalls":[]}`
		var tests []struct{ what, profile, calls string }
		add := func(what, profile, calls string) {
			tests = append(tests, struct{ what, profile, calls string }{what, profile, calls})
		}
		// Rules on arguments, each on a system call of its own that has none.
		free := []string{"getppid 6e", "getuid 66", "getgid 68", "geteuid 6b", "getegid 6c", "getpgrp 6f", "munlockall 98"}
		var whats, rules, calls []string
		flush := func() {
			add(strings.Join(whats, "; "), with(rules...), strings.Join(calls, " "))
			whats, rules, calls = nil, nil, nil
		}
		on := func(what, values string, of ...string) {
			if len(whats) == len(free) {
				flush()
			}
			name, number, _ := strings.Cut(free[len(whats)], " ")
			whats = append(whats, what+" on "+name)
			for _, r := range of {
				rules = append(rules, strings.Replace(r, "getppid", name, 1))
			}
			for _, v := range strings.Fields(values) {
				calls = append(calls, number+","+v)
			}
		}
		const around = "4 5 6 100000005 ffffffff00000005 0 200000005 100000004 100000006"
		for _, op := range []string{"EQ", "NE", "LT", "LE", "GT", "GE"} {
			on(op+" 5", around, rule("ALLOW", arg(0, op, 5)))
			on(op+" 0x100000005", around, rule("ALLOW", arg(0, op, 1<<32|5)))
		}
		for _, m := range [][2]uint64{{0xf, 5}, {0xffffffff, 5}, {0xf00000000, 1 << 32}, {0x10000000f, 1<<32 | 5}, {0, 0}, {4, 4}} {
			on(fmt.Sprintf("MASKED_EQ %x %x", m[0], m[1]), around, rule("ALLOW", arg(0, "MASKED_EQ", m[0], m[1])))
		}
		on("two arguments", "5,7 5,8 4,8 5,100000000", rule("ALLOW", arg(0, "EQ", 5)+","+arg(1, "GT", 7)))
		on("one twice", "5 6 7 7,1", rule("ALLOW", arg(0, "EQ", 5)+","+arg(0, "EQ", 6)+","+arg(1, "EQ", 1)))
		on("first without conditions", around, rule("ALLOW", ""), rule("KILL", arg(0, "EQ", 5)))
		on("last without conditions", around, rule("KILL", arg(0, "EQ", 5)), rule("ALLOW", ""))
		on("the shorter of two", "5,6 5,7", rule("ALLOW", arg(0, "EQ", 5)+","+arg(1, "EQ", 7)), rule("ALLOW", arg(0, "EQ", 5)))
		on("two ranges", "2 3 7 8", rule("ALLOW", arg(0, "LT", 3)), rule("ALLOW", arg(0, "GT", 7)))
		on("the default action's", "5,1 5,2", rule("ERRNO", arg(0, "EQ", 5)), rule("ALLOW", arg(1, "EQ", 1)))
		errnoOf := func(errno int, args string) string {
			return strings.Replace(rule("ERRNO", args), `"args"`, fmt.Sprintf(`"errnoRet":%d,"args"`, errno), 1)
		}
		on("of two the more special", "5 4 6", errnoOf(2, arg(0, "GE", 5)), errnoOf(3, arg(0, "EQ", 5)))
		on("of two on one argument", "1 3 4 8", errnoOf(2, arg(0, "LT", 3)), errnoOf(3, arg(0, "LT", 7)))
		on("of two above", "1 3 4 8", errnoOf(2, arg(0, "GT", 3)), errnoOf(3, arg(0, "GT", 7)))
		on("of two below and above", "1 3 4 5 8", errnoOf(2, arg(0, "GE", 3)), errnoOf(3, arg(0, "LE", 5)))
		on("of two unequal", "1 3 4", errnoOf(2, arg(0, "NE", 3)), errnoOf(3, arg(0, "NE", 4)))
		on("of two arguments", "5,6 4,7 5,7", errnoOf(2, arg(0, "EQ", 5)), errnoOf(3, arg(1, "EQ", 7)))
		on("of two pairs", "5,6 4,7 5,7,9 5,7,8", errnoOf(2, arg(0, "EQ", 5)+","+arg(2, "EQ", 9)), errnoOf(3, arg(0, "EQ", 5)+","+arg(1, "EQ", 7)))
		flush()
		add("errnoRet, and names that nobody knows", with(`{"names":["getppid"],"action":"SCMP_ACT_ERRNO","errnoRet":13}`,
			`{"names":["frobnicate","getuid"],"action":"SCMP_ACT_ALLOW"}`, strings.Replace(rule("LOG", ""), "getppid", "getgid", 1), strings.Replace(rule("TRACE", ""), "getppid", "getegid", 1)), "6e 66 68 6c")
		add("defaultErrnoRet", `{"defaultErrnoRet":13,`+onlyErrno+`}`, "6e 1d6 1d8 400")
		add("newer", with(`{"names":["faccessat2"],"action":"SCMP_ACT_ALLOW"}`), "6e 1b6 1b7 1b8 1d0 400 7ff")
		add("newer, and x32", `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X32","SCMP_ARCH_X86"]}`, "6e 1d0 400 4000006e 40000001 40000400")
		add("newer and allowed", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[`+rule("ERRNO", "")+`]}`, "6e 400")
		add("trap", with(rule("TRAP", "")), "27 6e 27")
		add("kill", with(rule("KILL", "")), "27 k6e 27")
		add("kill the process", with(rule("KILL_PROCESS", "")), "27 6e 27")
		add("kill by default", killed, "27 6e 27")
		add("x32 not listed", with(rule("ALLOW", "")), "27 k4000006e 27")
		add("nothing", `{}`, "6e")
		for _, test := range tests {
			args := append([]string{"probe"}, strings.Fields(test.calls)...)
			spec := func() *specs.Spec {
				s := withSeccomp(t, root, test.profile, args...)
				if test.what == "nothing" {
					s.Linux.Seccomp.Syscalls = nil
				}
				return s
			}
			ours, err := run(t, spec(), nil)
			if err != nil {
				t.Errorf("%s: %v", test.what, err)
				continue
			}
			theirs := underRunc(t, spec())
			if ours.status != theirs.status || ours.out != theirs.out {
				t.Errorf("%s: %s\nours   %d %q\nrunc's %d %q %s", test.what, test.profile, ours.status, ours.out, theirs.status, theirs.out, theirs.errOut)
			}
		}
	})
}

// TestSeccompLoaded: the filter is there, whether privileges can be gained or
// not, with a user namespace and without; and its loading needs no more of the
// profile than it has to.
func TestSeccompLoaded(t *testing.T) {
	root := probeRoot(t)
	const late = `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[]}`
	for _, test := range []struct {
		nnp, userns bool
		uid         uint32
	}{{true, true, 0}, {false, true, 0}, {true, false, 0}, {false, false, 0}, {false, true, 33}} {
		spec := withSeccomp(t, root, late, "probe", "6e", "27")
		spec.Process.NoNewPrivileges, spec.Process.User.UID = test.nnp, test.uid
		if !test.userns {
			spec.Linux.UIDMappings, spec.Linux.GIDMappings = nil, nil
			spec.Linux.Namespaces = spec.Linux.Namespaces[1:]
		}
		names := spec.Linux.Seccomp.Syscalls[0].Names
		if test.nnp { // then only the program's own calls are asked about
			names = strings.Fields(strings.NewReplacer(" capset ", " ", " setresuid ", " ", " close_range ", " ", " setgroups ", " ").Replace(strings.Join(names, " ")))
		}
		spec.Linux.Seccomp.Syscalls[0].Names = names
		r, err := run(t, spec, nil)
		if err != nil || r.status != 0 || r.out != "6e operation not permitted\n27 1\n" {
			t.Errorf("%+v: %+v, %v", test, r, err)
		}
	}
	// Without no_new_privs the profile is in force while privileges go.
	spec := withSeccomp(t, root, late, "probe", "6e")
	spec.Process.NoNewPrivileges = false
	names := spec.Linux.Seccomp.Syscalls[0].Names
	spec.Linux.Seccomp.Syscalls[0].Names = strings.Fields(strings.ReplaceAll(strings.Join(names, " "), " setresuid ", " "))
	if _, err := run(t, spec, nil); err == nil || !strings.Contains(err.Error(), "become user 0: operation not permitted") {
		t.Errorf("a profile that lets nobody become its user: %v", err)
	}
	// A program that is not there, and a profile that does not even let the
	// process exit, end the start.
	spec = config(root, "nosuchprogram")
	spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"execve"}, Action: specs.ActAllow}}}
	if _, err := run(t, spec, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("a program that is not there: %v", err)
	}
}

func TestSeccompRefused(t *testing.T) {
	root := busyboxRoot(t)
	for _, test := range []struct{ profile, want string }{
		{`{"defaultAction":"SCMP_ACT_SHRUG"}`, `linux.seccomp: invalid seccomp profile: unknown action "SCMP_ACT_SHRUG"`},
		{`{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_PDP11"]}`, "unknown architecture"},
		{`{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_HURRY"]}`, "unknown flag"},
		{`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_NOTIFY"}]}`, "without a listenerPath"},
	} {
		if _, err := run(t, withSeccomp(t, root, test.profile, "true"), nil); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v; want %q", test.profile, err, test.want)
		}
	}
}

// agent answers the system calls of one process: getppid with a number of its
// own, all others with "go on". It returns what it was told, and the numbers of
// the calls that it was asked about.
func agent(t *testing.T, path string) (told chan specs.ContainerProcessState, asked chan []int32) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	}
	if err == nil {
		err = unix.Listen(fd, 1)
	}
	if err != nil {
		t.Fatal(err)
	}
	told, asked = make(chan specs.ContainerProcessState, 1), make(chan []int32, 1)
	go func() {
		defer unix.Close(fd)
		conn, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
		if err != nil {
			t.Error(err)
			return
		}
		text, oob := make([]byte, 64<<10), make([]byte, 256)
		n, oobn, _, _, err := unix.Recvmsg(conn, text, oob, unix.MSG_CMSG_CLOEXEC)
		unix.Close(conn)
		var state specs.ContainerProcessState
		if err == nil {
			err = json.Unmarshal(text[:n], &state)
		}
		messages, err2 := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil || err2 != nil || len(messages) != 1 {
			t.Errorf("the agent was sent %q, %d messages: %v, %v", text[:n], len(messages), err, err2)
			return
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil || len(fds) != 1 {
			t.Errorf("the agent was sent descriptors %v, %v", fds, err)
			return
		}
		told <- state
		asked <- answer(fds[0])
	}()
	return told, asked
}

// answer answers system calls until the process has ended.
func answer(listener int) (numbers []int32) {
	defer unix.Close(listener)
	type request struct { // struct seccomp_notif
		id         uint64
		pid, flags uint32
		number     int32
		arch       uint32
		pointer    uint64
		args       [6]uint64
	}
	type response struct { // struct seccomp_notif_resp
		id    uint64
		value int64
		errno int32
		flags uint32
	}
	for {
		poll := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, -1); err != nil && err != unix.EINTR || poll[0].Revents&unix.POLLHUP != 0 {
			return numbers
		}
		var q request
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&q))); e != 0 {
			continue
		}
		numbers = append(numbers, q.number)
		r := response{id: q.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		if q.number == unix.SYS_GETPPID {
			r.flags, r.value = 0, 4242
		}
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&r)))
	}
}

func within[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(testkit.Patience(20 * time.Second)):
		t.Fatalf("%s: nothing for 20 s", what)
	}
	return v
}

// TestSeccompNotify: an agent learns of a process, and answers for the kernel,
// even of the calls by which the process tells us how far it is.
func TestSeccompNotify(t *testing.T) {
	root := probeRoot(t)
	socket := filepath.Join(t.TempDir(), "agent")
	profile := `{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"` + socket + `","listenerMetadata":"for the agent",
		"syscalls":[{"names":["getppid","write","read","execve","setresuid","capset"],"action":"SCMP_ACT_NOTIFY"}]}`
	for _, nnp := range []bool{true, false} {
		told, asked := agent(t, socket)
		spec := withSeccomp(t, root, profile, "probe", "6e")
		spec.Annotations = map[string]string{"a": "b"}
		spec.Process.NoNewPrivileges = nnp
		r, err := run(t, spec, nil)
		if err != nil || r.out != "6e 4242\n" {
			t.Errorf("no_new_privs %v: %+v, %v", nnp, r, err)
		}
		state := within(t, "the agent's state", told)
		if state.Version != specs.Version || len(state.Fds) != 1 || state.Fds[0] != "seccompFd" || state.Metadata != "for the agent" ||
			state.Pid <= 1 || state.State.Pid != state.Pid || state.State.Status != specs.StateCreating || state.State.ID != "test" || state.State.Annotations["a"] != "b" {
			t.Errorf("no_new_privs %v: the agent was told %+v", nnp, state)
		}
		numbers := within(t, "the agent's calls", asked)
		seen := map[int32]bool{}
		for _, n := range numbers {
			seen[n] = true
		}
		if !seen[unix.SYS_WRITE] || !seen[unix.SYS_EXECVE] || !seen[unix.SYS_READ] || seen[unix.SYS_CAPSET] == nnp || seen[unix.SYS_SETRESUID] == nnp {
			t.Errorf("no_new_privs %v: the agent was asked about %v", nnp, numbers)
		}
		if err := os.Remove(socket); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSeccompWithoutAgent: who creates a container learns that its agent is
// not there, and nothing is left of it.
func TestSeccompWithoutAgent(t *testing.T) {
	root := busyboxRoot(t)
	socket := filepath.Join(t.TempDir(), "agent")
	profile := `{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"` + socket + `","syscalls":[{"names":["getppid"],"action":"SCMP_ACT_NOTIFY"}]}`
	for _, nnp := range []bool{true, false} {
		spec := withSeccomp(t, root, profile, "true")
		spec.Process.NoNewPrivileges = nnp
		_, err := run(t, spec, nil)
		if !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "failed to connect with seccomp agent: connect to "+socket+":") {
			t.Errorf("without an agent: %v", err)
		}
	}
	// One that takes the descriptor and lets it go answers nothing.
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: socket})
	}
	if err == nil {
		err = unix.Listen(fd, 1)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	go func() {
		if conn, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC); err == nil {
			_, _ = unix.Read(conn, make([]byte, 1)) // and so lets the descriptor go
			unix.Close(conn)
		}
	}()
	spec := withSeccomp(t, root, strings.Replace(profile, `"getppid"`, `"execve"`, 1), "true")
	if _, err := run(t, spec, nil); !errors.Is(err, unix.ENOSYS) {
		t.Errorf("with an agent that goes: %v", err)
	}
	if pids, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", unix.Gettid())); err != nil || len(pids) > 0 {
		t.Errorf("children are left: %s, %v", pids, err)
	}
}

// TestSeccompExec: a process that is executed in a container has its filter,
// and its agent is told whose it is.
func TestSeccompExec(t *testing.T) {
	root := probeRoot(t)
	socket := filepath.Join(t.TempDir(), "agent")
	profile := `{` + onlyErrno + `,"listenerPath":"` + socket + `","syscalls":[{"names":["getppid"],"action":"SCMP_ACT_NOTIFY"}]}`
	told, _ := agent(t, socket)
	spec := withSeccomp(t, root, profile, "probe", "0,0,0,1") // reads until the end of its input
	ctx := t.Context()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	in, hold, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer hold.Close()
	o := Options{ID: "test", Bundle: t.TempDir(), MapRoot: true, Stdio: [3]*os.File{in, null, null}}
	c, err := Create(ctx, spec, o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	defer c.Kill()
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	first := within(t, "the first state", told)
	if err := os.Remove(socket); err != nil {
		t.Fatal(err)
	}
	told, _ = agent(t, socket)
	pidfd, err := c.proc.Pidfd()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	o.Stdio = [3]*os.File{null, w, null}
	p := *spec.Process
	p.Args = []string{"probe", "6e", "27", "10,1"}
	e, err := Exec(ctx, spec, &p, c.Pid(), pidfd, o)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if err := e.Start(ctx); err != nil {
		t.Fatal(err)
	}
	status, err := e.Wait()
	out := make([]byte, 1000)
	n, _ := r.Read(out)
	if want := "6e 4242\n"; err != nil || status != 0 || !strings.HasPrefix(string(out[:n]), want) || !strings.Contains(string(out[:n]), "10,1 operation not permitted") {
		t.Errorf("executed: %d, %v, %q", status, err, out[:n])
	}
	state := within(t, "the second state", told)
	if state.State.Status != specs.StateRunning || state.State.Pid != first.Pid || state.Pid == first.Pid || state.State.ID != "test" {
		t.Errorf("the agent was told %+v of the second process, %+v of the first", state, first)
	}
}
