package container

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Each attribute of a process as it is seen from inside, once with a user
// namespace and once without.
func TestAttributes(t *testing.T) {
	root := busyboxRoot(t)
	umask := uint32(0o012)
	// nice value, priority and policy (proc_pid_stat(5))
	const stat = "set -- $(cat /proc/$$/stat); echo ${19} ${40} ${41}"
	for _, test := range []struct {
		name, script, want string
		change             func(*specs.Spec)
	}{
		{
			"batch", stat, "0 0 3",
			func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch} },
		},
		{
			"idle", stat, "0 0 5",
			func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedIdle} },
		},
		{
			"round robin", stat, "0 7 2",
			func(s *specs.Spec) {
				s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedRR, Priority: 7, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork}}
			},
		},
		{
			"nice", stat, "7 0 0",
			func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Nice: 7} },
		},
		{
			"io", "busybox ionice -p $$", "best-effort: prio 6",
			func(s *specs.Spec) {
				s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 6}
			},
		},
		{
			"io idle", "busybox ionice -p $$ | grep -o idle", "idle",
			func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_IDLE} },
		},
		{
			"personality", "busybox uname -m", "i686",
			func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32} },
		},
		{
			"memory", "busybox grep -o 'bind[^ ]*' /proc/self/numa_maps | head -n 1", "bind:0",
			func(s *specs.Spec) { s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0"} },
		},
		{
			"limits", "ulimit -n; ulimit -Hn; ulimit -f", "3\n3\n0",
			func(s *specs.Spec) {
				s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 3, Hard: 3}, {Type: "RLIMIT_FSIZE"}}
			},
		},
		{"umask", "umask", "0012", func(s *specs.Spec) { s.Process.User.Umask = &umask }},
		{
			"limits of another user", "id -u; ulimit -n; ulimit -Hn", "33\n20\n30",
			func(s *specs.Spec) {
				s.Process.User = specs.User{UID: 33, GID: 33}
				s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 20, Hard: 30}}
			},
		},
	} {
		for _, userns := range []bool{true, false} {
			spec := config(root)
			if !userns {
				withoutUser(spec)
			}
			test.change(spec)
			if got := sh(t, spec, test.script); got != test.want {
				t.Errorf("%s, userns %v: %q; want %q", test.name, userns, got, test.want)
			}
		}
	}
	if policy, _, _ := unix.RawSyscall(unix.SYS_SCHED_GETSCHEDULER, 0, 0, 0); policy != unix.SCHED_NORMAL {
		t.Errorf("our own scheduling policy is %d; want %d", policy, unix.SCHED_NORMAL)
	}
}

func withoutUser(s *specs.Spec) {
	s.Linux.UIDMappings, s.Linux.GIDMappings = nil, nil
	s.Linux.Namespaces = s.Linux.Namespaces[1:]
}

func TestAttributesRefused(t *testing.T) {
	for name, change := range map[string]func(*specs.Spec){
		"policy":            func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: "SCHED_LUCK"} },
		"nice":              func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Nice: 20} },
		"priority of batch": func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Priority: 1} },
		"period of fifo":    func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedFIFO, Period: 1} },
		"scheduler flag": func(s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Flags: []specs.LinuxSchedulerFlag{"x"}}
		},
		"io class": func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{Class: "x"} },
		"io priority": func(s *specs.Spec) {
			s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 8}
		},
		"affinity":      func(s *specs.Spec) { s.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "3-1"} },
		"affinity, far": func(s *specs.Spec) { s.Process.ExecCPUAffinity = &specs.CPUAffinity{Final: "99999999"} },
		"personality":   func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: "BSD"} },
		"personality flag": func(s *specs.Spec) {
			s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux, Flags: []specs.LinuxPersonalityFlag{"x"}}
		},
		"memory mode": func(s *specs.Spec) { s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: "x"} },
		"memory flag": func(s *specs.Spec) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Flags: []specs.MemoryPolicyFlagType{"x"}}
		},
		"memory nodes": func(s *specs.Spec) { s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "a"} },
		"limit twice": func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CORE"}, {Type: "RLIMIT_CORE"}}
		},
		"limit upside down": func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 2, Hard: 1}} },
		"oom_score_adj":     func(s *specs.Spec) { n := 1001; s.Process.OOMScoreAdj = &n },
		"umask":             func(s *specs.Spec) { n := uint32(0o1000); s.Process.User.Umask = &n },
		"version":           func(s *specs.Spec) { s.Version = "1.0" },
		"no version":        func(s *specs.Spec) { s.Version = "" },
		"version 01":        func(s *specs.Spec) { s.Version = "01.0.0" },
		"timeout of a hook": func(s *specs.Spec) {
			n := 1 << 40
			s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "/bin/true", Timeout: &n}}}
		},
		"masked path": func(s *specs.Spec) { s.Linux.MaskedPaths = []string{"proc"} },
	} {
		spec := config("/", "true")
		change(spec)
		if err := check(spec); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v; want %v", name, err, ErrInvalid)
		}
	}
	spec := config("/", "true")
	for version, ok := range map[string]bool{"1.0.0": true, "1.3.0": true, "1.0.2-dev": true, "1.2.1+x": true, "0.9.0": false, "2.0.0": false} {
		if spec.Version = version; (check(spec) == nil) != ok {
			t.Errorf("version %s: %v; want it taken: %v", version, check(spec), ok)
		}
	}
}

// TestUnknownNames: who writes a name that is none hears which there are.
func TestUnknownNames(t *testing.T) {
	for want, change := range map[string]func(*specs.Spec){
		`namespace "net": want one of ["cgroup" "ipc" `:     func(s *specs.Spec) { s.Linux.Namespaces = []specs.LinuxNamespace{{Type: "net"}} },
		`rootfsPropagation "none": want one of ["private" `: func(s *specs.Spec) { s.Linux.RootfsPropagation = "none" },
		`rlimit "NOFILE": want one of setrlimit(2), such as RLIMIT_NOFILE`: func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "NOFILE"}}
		},
		`policy "FIFO": want one of ["SCHED_BATCH" `:  func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: "FIFO"} },
		`class "BE": want one of ["IOPRIO_CLASS_BE" `: func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{Class: "BE"} },
		`domain "LINUX64": want one of ["LINUX" "LINUX32"]`: func(s *specs.Spec) {
			s.Linux.Personality = &specs.LinuxPersonality{Domain: "LINUX64"}
		},
		`device /dev/x is of type "f": want c, u, b or p`: func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "f"}} },
	} {
		spec := config("/", "true")
		change(spec)
		if err := check(spec); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %s", err, want)
		}
	}
}

// What the kernel refuses names what was asked for.
func TestHardLimit(t *testing.T) {
	root := busyboxRoot(t)
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err != nil {
		t.Fatal(err)
	}
	spec := config(root, "true")
	spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1, Hard: own.Max + 1}}
	if _, err := run(t, spec, nil); err == nil || !strings.Contains(err.Error(), "RLIMIT_NOFILE") {
		t.Errorf("a hard limit above our own: %v; want an error that names it", err)
	}
}

func TestParseList(t *testing.T) {
	for list, want := range map[string][]uint64{
		"": nil, "0": {1}, "0-3,7": {0x8f}, "64": {0, 1}, " 1 , 3": {10},
	} {
		if got, err := parseList(list); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("parseList(%q) = %v, %v; want %v", list, got, err, want)
		}
	}
	for _, list := range []string{"x", "1-", "-1", "2-1", "8192", "1-2-3"} {
		if got, err := parseList(list); !errors.Is(err, ErrInvalid) {
			t.Errorf("parseList(%q) = %v, %v; want %v", list, got, err, ErrInvalid)
		}
	}
}
