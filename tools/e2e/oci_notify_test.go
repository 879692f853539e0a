package e2e

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/testkit"
)

// service tells its manager what its arguments say, and stays. It may be that
// nobody listens to it once it was ready.
func service(args []string) int {
	conn, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	for _, text := range args {
		if _, err := conn.Write([]byte(text)); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println("all is said")
	_ = unix.Pause()
	return 0
}

// manager is a service manager's socket.
type manager struct {
	*testing.T
	conn *net.UnixConn
}

func manage(t *testing.T, path string) manager {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return manager{t, conn}
}

// hears returns the next message, and the descriptor that came with it, or -1.
func (m manager) hears() (string, int) {
	m.Helper()
	if err := m.conn.SetReadDeadline(time.Now().Add(testkit.Patience(20 * time.Second))); err != nil {
		m.Fatal(err)
	}
	text, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := m.conn.ReadMsgUnix(text, oob)
	if err != nil {
		m.Fatal(err)
	}
	fd := -1
	if messages, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(messages) == 1 {
		if fds, err := unix.ParseUnixRights(&messages[0]); err == nil && len(fds) == 1 {
			fd = fds[0]
		}
	}
	return string(text[:n]), fd
}

// silent says that nothing more has come.
func (m manager) silent() {
	m.Helper()
	if err := m.conn.SetReadDeadline(time.Now()); err != nil {
		m.Fatal(err)
	}
	text := make([]byte, 4096)
	if n, err := m.conn.Read(text); err == nil {
		m.Errorf("the manager was told %q", text[:n])
	}
}

// TestOCINotify passes on to a service manager that a container is ready, and
// nothing else that it says.
func TestOCINotify(t *testing.T) {
	onOCI(t, func(t *testing.T, h *testkit.Host, oci func(string) testkit.Result) {
		ok(t, h.Sh(t, fmt.Sprintf(`cp /proc/%d/exe bundle/rootfs/service; chown -R 100000:100000 bundle/rootfs; chmod 755 . bundle`, os.Getpid())))
		ok(t, oci(`edit '.process.user = {uid: 1000, gid: 1000} | .root.readonly = false
			| .linux.namespaces += [{type: "user"}] | .linux.uidMappings = [{hostID: 100000, containerID: 0, size: 65536}]
			| .linux.gidMappings = .linux.uidMappings'`))
		m := manage(t, h.Dir+"/manager")
		const as = `NOTIFY_SOCKET=$PWD/manager; export NOTIFY_SOCKET; `
		// start waits until the program is ready, and the manager has heard it.
		ok(t, oci(as+`program /service MAINPID=1 "$(printf 'STATUS=up\nREADY=1\nMAINPID=1')" MAINPID=1
			oci create -b bundle --pid-file pid one`))
		started := make(chan testkit.Result, 1)
		go func() { started <- oci(as + `oci start one`) }()
		pid, err := os.ReadFile("pid")
		if err != nil {
			t.Fatal(err)
		}
		if text, _ := m.hears(); text != "MAINPID="+string(pid)+"\nREADY=1" {
			t.Errorf("the manager of %s heard %q", pid, text)
		}
		text, barrier := m.hears()
		if text != "BARRIER=1" || barrier < 0 {
			t.Fatalf("the manager heard %q, with descriptor %d", text, barrier)
		}
		// If it did not wait, nobody would read from the pipe any more (poll(2)).
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(barrier)}}, 500); n != 0 || err != nil {
			t.Errorf("start ends before the manager has heard it (%v)", err)
		}
		unix.Close(barrier)
		ok(t, <-started)
		m.silent()
		const mount = `grep ' /run/notify ' /proc/$(cat pid)/mounts | cut -d' ' -f4 | cut -d, -f1-4; ls -A oci/one/notify; oci delete -f one`
		if r := oci(mount); r.Stdout != "ro,nosuid,nodev,noexec\n" {
			t.Errorf("mounted as %+v", r)
		}
		// run without --detach stays, and is what the manager watches. It lets nobody
		// wait who goes on telling.
		run := make(chan testkit.Result, 1)
		go func() {
			run <- oci(as + `program /service READY=1 $(seq 1000); shocker-oci --root oci run -b bundle one >out 2>&1 & echo $! >runner; wait $!`)
		}()
		text, _ = m.hears()
		runner, err := os.ReadFile("runner")
		if want := "MAINPID=" + strings.TrimSpace(string(runner)) + "\nREADY=1"; err != nil || text != want {
			t.Errorf("the manager heard %q, want %q, %v", text, want, err)
		}
		ok(t, oci(`wait_for grep -q 'all is said' out; oci kill one KILL`))
		if r := <-run; r.Code != 137 {
			t.Errorf("run: %+v", r)
		}
		m.silent()
		// Who ends before it is ready, is deleted, or is not to tell, is not waited for.
		for _, test := range []struct{ script, want string }{
			{as + `program true; oci run -d -b bundle one; echo $?`, "0\n"},
			{as + `program sh -c 'echo $NOTIFY_SOCKET; exit 3'; oci run -b bundle one; echo $?`, "/run/notify/notify.sock\n3\n"},
			{as + `program sleep 1000; oci create -b bundle one; oci start one & wait_for is one running; oci delete -f one; wait $!; echo $?`, "0\n"},
			{`program sleep 1000; oci create -b bundle one; ` + as + `oci start one; echo $?`, "0\n"},
			{as + `program sleep 1000; oci create -b bundle one; unset NOTIFY_SOCKET; oci start one; echo $?`, "0\n"},
			{`NOTIFY_SOCKET=/nosuch; export NOTIFY_SOCKET; program sleep 1000; oci run -d -b bundle one 2>&1 | grep -o 'NOTIFY_SOCKET: .*'; oci state one >/dev/null 2>&1; echo $?`, "NOTIFY_SOCKET: connect to /nosuch: does not exist\n1\n"},
		} {
			if r := oci(test.script + `; oci delete -f one`); r.Stdout != test.want {
				t.Errorf("%s: %+v; want %q", test.script, r, test.want)
			}
		}
		m.silent()
		abstract := manage(t, "@shocker-manager")
		go func() {
			run <- oci(`program /service READY=1; NOTIFY_SOCKET=@shocker-manager oci run -d -b bundle one`)
		}()
		if text, _ := abstract.hears(); !strings.HasSuffix(text, "\nREADY=1") {
			t.Errorf("the abstract socket got %q", text)
		}
		if _, barrier := abstract.hears(); barrier >= 0 {
			unix.Close(barrier)
		}
		ok(t, <-run)
		ok(t, oci(`oci delete -f one`))
	})
}
