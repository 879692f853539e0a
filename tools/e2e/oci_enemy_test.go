package e2e

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/testkit"
)

// TestOCIRoots: where containers could be another user's is no place for them,
// and what else lies in one is never removed.
func TestOCIRoots(t *testing.T) {
	onOCI(t, func(t *testing.T, h *testkit.Host, oci func(string) testkit.Result) {
		for _, test := range []struct{ script, out, err string }{
			{`mkdir r; chown 1000 r; shocker-oci --root r create -b bundle one; shocker-oci --root r list`, "", "r belongs to user 1000"},
			{`mkdir -m 777 r; shocker-oci --root r create -b bundle one; shocker-oci --root r delete -f one`, "", "r can be written by others"},
			{`shocker-oci --root '' delete -f bundle; shocker-oci --root '' list; mkdir r`, "", "--root is empty"},
			{`mkdir -p r/one; : >r/one/precious; shocker-oci --root r delete -f one; shocker-oci --root r delete one; ls r/one`, "precious\n", `"precious"`},
			{`mkdir -p r/one; shocker-oci --root r delete -f one; ls r`, "one\n", "others may enter it"},
			// Who can rename it can put another in its place.
			{`mkdir u; chown 1000 u; mkdir u/r; shocker-oci --root u/r create -b bundle one; shocker-oci --root u/r delete -f one; ls u/r; rm -r u`, "", "u belongs to user 1000"},
			{`mkdir -m 777 u; shocker-oci --root u/r list; shocker-oci --root u/r create -b bundle one; ls u; rm -r u`, "", "u can be written by others"},
			{`mkdir -m 1777 u; shocker-oci --root u/a/r run -b bundle one; rm -r u`, "ran\n", ""},
			{`: >r; shocker-oci --root r create -b bundle one; shocker-oci --root r delete -f one`, "", "not a directory"},
			{`shocker-oci --root r list -q; shocker-oci --root r delete -f one; ls r`, "", "cannot access 'r'"},
			{`mkdir -m 711 r; ln -s r link; shocker-oci --root link/. run -b bundle one; ls r; rm link`, "ran\n", ""},
			{`mkdir r; cd r; shocker-oci --root . create -b ../bundle one <&- >/dev/null 2>&1; shocker-oci --root ../r delete -f one; cd ..; ls r`, "", ""},
			{`mkdir r; mount -t tmpfs -o noexec,nodev,nosuid,mode=700 x r; shocker-oci --root r run -b bundle one; umount r`, "ran\n", ""},
			// No room: a write to what is mapped there would end us.
			{`mkdir r; mount -t tmpfs -o size=12k,mode=700 x r; shocker-oci --root r create -b bundle one; ls r; umount r`, "", "no space left"},
			{`mkdir r; mount -t tmpfs -o size=100k,mode=700 x r; shocker-oci --root r create -b bundle one; ls r; umount r`, "", "make room in"},
			{`mkdir r; mount -t tmpfs -o nr_inodes=4,mode=700 x r; shocker-oci --root r create -b bundle one; ls r; umount r`, "", "no space left"},
			{`mkdir r; mount -t tmpfs -o mode=700 x r; mount -o remount,ro r; shocker-oci --root r create -b bundle one; ls r; umount r`, "", "read-only"},
		} {
			r := oci(`program echo ran; ` + test.script + `; rm -rf r`)
			if r.Stdout != test.out || !strings.Contains(r.Stderr, test.err) || test.err == "" && r.Stderr != "" || strings.Contains(r.Stderr, "goroutine") {
				t.Errorf("%s: %+v; want %q and %q", test.script, r, test.out, test.err)
			}
		}
	})
}

// TestOCIPidFile: it replaces a file that is there and nothing else, and follows
// no link that somebody has laid in its way.
func TestOCIPidFile(t *testing.T) {
	onOCI(t, func(t *testing.T, h *testkit.Host, oci func(string) testkit.Result) {
		for make, want := range map[string]string{
			`:`:                           "written\n",
			`mkfifo pids/one`:             "want a file\n",
			`ln -s ../victim pids/one`:    "written\n",
			`mknod pids/one c 1 3`:        "want a file\n",
			`mkdir pids/one`:              "want a file\n",
			`ln -s /dev/null pids/one`:    "want a file\n",
			`: >pids/one`:                 "written\n",
			`rmdir pids`:                  "does not exist\n",
			`mount -t tmpfs -o ro x pids`: "read-only file system\n",
			`for i in $(seq $$ $(($$ + 400))); do ln -s ../victim pids/.one.$i; done`: "written\n",
		} {
			r := oci(`mkdir pids; : >victim; ` + make + `; if oci create -b bundle --pid-file pids/one one 2>err; then [ -f pids/one ] && [ ! -h pids/one ] && echo written; else sed 's/.*: //' err; fi
				[ -s victim ] && echo "victim: $(cat victim)"; oci delete -f one; umount pids 2>/dev/null; rm -rf pids`)
			if r.Stdout != want || r.Stderr != "" {
				t.Errorf("%s: %+v; want %q", make, r, want)
			}
		}
	})
}

// TestOCIConsoleSocket: an engine that is not there, or does not take what it
// is sent, keeps nobody.
func TestOCIConsoleSocket(t *testing.T) {
	onOCI(t, func(t *testing.T, h *testkit.Host, oci func(string) testkit.Result) {
		socket := func(name string, kind int) int {
			fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
			if err == nil {
				err = unix.Bind(fd, &unix.SockaddrUnix{Name: name})
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Close(fd) })
			return fd
		}
		socket("deaf", unix.SOCK_STREAM)
		socket("datagrams", unix.SOCK_DGRAM)
		full, early := socket("full", unix.SOCK_STREAM), socket("early", unix.SOCK_STREAM)
		if err := unix.Listen(full, 0); err != nil {
			t.Fatal(err)
		}
		waits, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Connect(waits, &unix.SockaddrUnix{Name: "full"})
		}
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(waits)
		if err := unix.Listen(early, 8); err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				fd, _, err := unix.Accept(early)
				if err != nil {
					return
				}
				unix.Close(fd)
			}
		}()
		defer unix.Shutdown(early, unix.SHUT_RDWR)
		if err := os.WriteFile("file", nil, 0o600); err != nil {
			t.Fatal(err)
		}
		long := strings.Repeat("x", 60) + "/" + strings.Repeat("y", 60)
		ok(t, oci(`edit '.process.terminal = true'`))
		for socket, want := range map[string]string{
			"deaf": "connection refused", "datagrams": "wrong type", "early": "broken pipe", "file": "connection refused",
			"nosuch": "nosuch: does not exist", ".": "connection refused", "full": "nobody has accepted within 10s", long: "107 bytes at most",
		} {
			if r := oci(`oci create -b bundle --console-socket ` + socket + ` one`); r.Code != 1 || !strings.Contains(r.Stderr, want) {
				t.Errorf("%s: %+v; want %q", socket, r, want)
			}
		}
	})
}

// TestOCINoUser: the number that means "leave alone" to the kernel makes nobody
// root, and a string with a NUL is not taken for what is before it.
func TestOCINoUser(t *testing.T) {
	onOCI(t, func(t *testing.T, h *testkit.Host, oci func(string) testkit.Result) {
		for _, test := range []struct{ filter, want string }{
			{`.process.user.uid = 4294967295`, "the number of no user or group"},
			{`.process.user.gid = 4294967295`, "the number of no user or group"},
			{`.process.user.additionalGids = [4294967295]`, "the number of no user or group"},
			{`.process.user.uid = 4294967296`, "uint32"},
			{`.process.user.uid = -1`, "uint32"},
			{`.hostname = "a\u0000b"`, "NUL byte"},
			{`.domainname = "a\u0000b"`, "NUL byte"},
			{`.mounts[0].source = "proc\u0000"`, "NUL byte"},
			{`.mounts[0].options = ["hidepid=2\u0000"]`, "NUL byte"},
			{`.mounts[0].destination = "/pr\u0000oc"`, "invalid argument"},
			{`.root.path = "rootfs\u0000"`, "invalid argument"},
			{`.linux.sysctl = {"kernel.msgmax": "1\u0000"}`, "NUL byte"},
			{`.linux.cgroupsPath = "/a\u0000b"`, "invalid argument"},
		} {
			r := oci(`cp bundle/config.json keep; program id; edit '` + test.filter + `'; oci run -b bundle one; mv keep bundle/config.json`)
			if r.Stdout != "" || !strings.Contains(r.Stderr, test.want) {
				t.Errorf("%s: %+v; want %q", test.filter, r, test.want)
			}
		}
		r := oci(`oci run -d -b bundle one; echo '{"cwd":"/","args":["id"],"env":["PATH=/bin"],"user":{"uid":4294967295}}' >p; oci exec -p p one; oci delete -f one`)
		if r.Stdout != "" || !strings.Contains(r.Stderr, "the number of no user or group") {
			t.Errorf("exec: %+v", r)
		}
	})
}

// TestOCICaller: the caller's umask is not the container's, and what it gives a
// program to read the program cannot write to.
func TestOCICaller(t *testing.T) {
	onOCI(t, func(t *testing.T, h *testkit.Host, oci func(string) testkit.Result) {
		r := oci(`edit '.process.user.uid = 1000 | .linux.devices = [{path: "/dev/net/tun", type: "c", major: 10, minor: 200}]'
			program sh -c 'for d in /dev/net /sys/fs/cgroup /sys/fs/cgroup/*; do [ ! -d $d ] || ls $d >/dev/null; done'
			umask 0777; oci run -b bundle one`)
		if r.Code != 0 || r.Stdout+r.Stderr != "" {
			t.Errorf("with a umask of 0777: %+v", r)
		}
		r = oci(`program sh -c 'cat; echo written >>/proc/self/fd/0; :'
			echo precious >precious; chmod 600 precious; oci run -b bundle one <precious 2>/dev/null; cat precious; stat -c '%u %a' precious`)
		if r.Code != 0 || r.Stdout != "precious\nprecious\n0 600\n" {
			t.Errorf("a file to read: %+v", r)
		}
		r = oci(`program sh -c 'echo again >/proc/self/fd/1'; shocker-oci --root oci run -b bundle one >out; cat out`)
		if r.Code != 0 || r.Stdout != "again\n" {
			t.Errorf("a file to write: %+v", r)
		}
	})
}
