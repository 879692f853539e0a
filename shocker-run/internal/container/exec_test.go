package container

import (
	"context"
	"errors"
	"io"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A further process has what its own description says, and what of the
// container holds for each of its processes.
func TestExec(t *testing.T) {
	root := busyboxRoot(t)
	umask, adj := uint32(0o027), 321
	for _, userns := range []bool{true, false} {
		spec := config(root)
		if !userns {
			withoutUser(spec)
		}
		spec.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
		spec.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0"}
		c, exec := started(t, spec, nil)
		for _, test := range []struct {
			name, script, want string
			change             func(*specs.Process)
		}{
			{"namespaces", "for n in cgroup ipc mnt net pid user uts time; do test $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) || echo $n; done", "", func(*specs.Process) {}},
			{"user", "id -u; id -g; id -G; umask", "33\n44\n44 55 66\n0027", func(p *specs.Process) {
				p.User = specs.User{UID: 33, GID: 44, AdditionalGids: []uint32{55, 66}, Umask: &umask}
			}},
			{"cwd", "pwd", "/tmp", func(p *specs.Process) { p.Cwd = "/tmp" }},
			{"limits", "ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj", "20\n30\n321", func(p *specs.Process) {
				p.Rlimits, p.OOMScoreAdj = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 20, Hard: 30}}, &adj
			}},
			{"scheduler", "set -- $(cat /proc/$$/stat); echo ${19} ${41}; busybox ionice -p $$", "5 3\nbest-effort: prio 2", func(p *specs.Process) {
				p.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 5}
				p.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 2}
			}},
			{"traits", "busybox uname -m; grep -c bind:0 /proc/self/numa_maps | { read n; test $n -gt 0 && echo bound; }", "i686\nbound", func(*specs.Process) {}},
			{"initial affinity", "grep -o 'list:.*' /proc/self/status | head -n 1 | grep -o '[0-9].*'", "0", func(p *specs.Process) {
				p.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0"}
			}},
			{"final affinity", "grep -o 'list:.*' /proc/self/status | head -n 1 | grep -o '[0-9].*'", "1", func(p *specs.Process) {
				p.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0", Final: "1"}
			}},
			{
				"capabilities", "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status | grep -o '[0-9a-f]*$'",
				"0000000000000020\n0000000000000020\n0000000000000020\n0000000000000021\n0000000000000020", func(p *specs.Process) {
					p.User.UID = 33
					p.Capabilities = &specs.LinuxCapabilities{
						Bounding: []string{"CAP_CHOWN", "CAP_KILL"}, Permitted: []string{"CAP_KILL"}, Effective: []string{"CAP_KILL"},
						Inheritable: []string{"CAP_KILL"}, Ambient: []string{"CAP_KILL"},
					}
				},
			},
			{"no new privileges", "grep NoNewPrivs /proc/self/status | grep -o '[01]'", "0", func(p *specs.Process) { p.NoNewPrivileges = false }},
			{"environment", "echo $A $HOME", "2 /", func(p *specs.Process) { p.Env = []string{"PATH=/bin", "A=1", "A=2", "HOME="} }},
		} {
			p := *spec.Process
			p.Args = []string{"sh", "-c", test.script}
			test.change(&p)
			if got, err := exec(&p); err != nil || got != test.want {
				t.Errorf("userns %v, %s: %q, %v; want %q", userns, test.name, got, err, test.want)
			}
		}
		p := *spec.Process
		p.Cwd = "/nosuch"
		if _, err := exec(&p); !errors.Is(err, ErrNoCwd) || !strings.Contains(err.Error(), "/nosuch: no such file or directory") {
			t.Errorf("userns %v, no working directory: %v; want %v", userns, err, ErrNoCwd)
		}
		execTerminal(t, c)
	}
	mask := unix.CPUSet{}
	if err := unix.SchedGetaffinity(0, &mask); err != nil || mask.Count() < 2 {
		t.Errorf("our own affinity is %v, %v", mask, err)
	}
}

// The terminal of an exec is on the container's own devpts, of the right size
// and its user's.
func execTerminal(t *testing.T, c *Container) {
	t.Helper()
	p := *c.spec.Process
	p.Args = []string{"sh", "-c", "stty size; stat -c %u $(tty); echo over >&3"}
	p.Terminal, p.ConsoleSize, p.User.UID = true, &specs.Box{Height: 12, Width: 34}, 33
	pidfd, err := c.proc.Pidfd()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	e, err := Exec(context.Background(), c.spec, &p, c.Pid(), pidfd, Options{Files: []*os.File{w}})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if err := e.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	out, _ := io.ReadAll(e.Console) // EIO, when nobody holds the other side any more
	e.Console.Close()
	file, err := io.ReadAll(r)
	if got := strings.ReplaceAll(string(out), "\r", "") + string(file); err != nil || got != "12 34\n33\nover\n" {
		t.Errorf("terminal: %q, %v", got, err)
	}
	if _, err := e.Wait(); err != nil {
		t.Error(err)
	}
}

// TestExecRecycledPid: the container's process has ended, and its number is by
// now another's on the host. Nothing is executed there.
func TestExecRecycledPid(t *testing.T) {
	cmd := osexec.Command("true")
	pidfd := -1
	cmd.SysProcAttr = &syscall.SysProcAttr{PidFD: &pidfd}
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	target := os.NewFile(uintptr(pidfd), "pidfd")
	defer target.Close()
	ran := filepath.Join(t.TempDir(), "ran")
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	spec := config(busyboxRoot(t))
	withoutUser(spec)
	p := *spec.Process
	p.Args = []string{"/bin/touch", ran}
	c, err := Exec(context.Background(), spec, &p, os.Getpid(), target, Options{ID: "test", Stdio: [3]*os.File{null, null, null}})
	if err == nil {
		_ = c.Start(context.Background())
		_, _ = c.Wait()
		c.Close()
	}
	if !errors.Is(err, ErrGone) {
		t.Errorf("%v; want %v", err, ErrGone)
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("the program was executed on the host")
	}
}
