package seccomp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// dockers is Docker's default profile for a process with these capabilities.
func dockers(t testing.TB, caps ...string) *specs.LinuxSeccomp {
	t.Helper()
	p, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const (
	x64Audit = unix.AUDIT_ARCH_X86_64
	x86Audit = unix.AUDIT_ARCH_I386
	a64Audit = unix.AUDIT_ARCH_AARCH64
	armAudit = unix.AUDIT_ARCH_ARM
)

const (
	allow  = unix.SECCOMP_RET_ALLOW
	kill   = unix.SECCOMP_RET_KILL_THREAD
	eperm  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	enosys = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
)

// profile reads a profile as it stands in a config.
func profile(t testing.TB, text string) *specs.LinuxSeccomp {
	t.Helper()
	p := &specs.LinuxSeccomp{}
	if err := json.Unmarshal([]byte(text), p); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return p
}

// errno is a profile with one errno for what is not allowed, on the x86s.
func errno(rest string) string {
	return `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"],` + rest + `}`
}

func rulesText(action, names, args string) string {
	return fmt.Sprintf(`{"names":[%s],"action":"SCMP_ACT_%s","args":[%s]}`, names, action, args)
}

func arg(index int, op string, values ...uint64) string {
	values = append(values, 0)
	return fmt.Sprintf(`{"index":%d,"op":"SCMP_CMP_%s","value":%d,"valueTwo":%d}`, index, op, values[0], values[1])
}

func TestCompile(t *testing.T) {
	args := func(a ...uint64) (args [6]uint64) { copy(args[:], a); return }
	one := func(op string, values ...uint64) string {
		return errno(`"syscalls":[` + rulesText("ALLOW", `"personality","getpid"`, arg(1, op, values...)) + `]`)
	}
	const big = 5<<32 | 7
	for _, test := range []struct {
		what, profile string
		data          data
		want          uint32
	}{
		{"of no profile's architecture", `{"defaultAction":"SCMP_ACT_ALLOW"}`, data{1, x86Audit, args()}, kill},
		{"of the machine's", `{"defaultAction":"SCMP_ACT_ALLOW"}`, data{1, x64Audit, args()}, allow},
		{"x32 that is not listed", `{"defaultAction":"SCMP_ACT_ALLOW"}`, data{x32Bit | 1, x64Audit, args()}, kill},
		{"skipped by a tracer", `{"defaultAction":"SCMP_ACT_ALLOW"}`, data{1<<32 - 1, x64Audit, args()}, allow},
		{"of another machine", `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_AARCH64"]}`, data{1, a64Audit, args()}, allow},
		{"of one without a table", `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_S390X"]}`, data{1, 0x80000016, args()}, kill},

		{"EQ", one("EQ", big), data{39, x64Audit, args(0, big)}, allow},
		{"EQ, lower half", one("EQ", big), data{39, x64Audit, args(0, 6<<32|7)}, eperm},
		{"EQ, upper half", one("EQ", big), data{39, x64Audit, args(0, 5<<32|8)}, eperm},
		{"EQ of 32 bits", one("EQ", big), data{20, x86Audit, args(0, 7)}, allow},
		{"NE", one("NE", big), data{39, x64Audit, args(0, big)}, eperm},
		{"NE, lower half", one("NE", big), data{39, x64Audit, args(0, 5<<32|8)}, allow},
		{"NE, upper half", one("NE", big), data{39, x64Audit, args(0, 7)}, allow},
		{"LT", one("LT", big), data{39, x64Audit, args(0, big)}, eperm},
		{"LT, lower half", one("LT", big), data{39, x64Audit, args(0, big-1)}, allow},
		{"LT, upper half", one("LT", big), data{39, x64Audit, args(0, 4<<32|9)}, allow},
		{"LE", one("LE", big), data{39, x64Audit, args(0, big)}, allow},
		{"LE, above", one("LE", big), data{39, x64Audit, args(0, 6<<32)}, eperm},
		{"GT", one("GT", big), data{39, x64Audit, args(0, big)}, eperm},
		{"GT, upper half", one("GT", big), data{39, x64Audit, args(0, 6<<32)}, allow},
		{"GE", one("GE", big), data{39, x64Audit, args(0, big)}, allow},
		{"GE, below", one("GE", big), data{39, x64Audit, args(0, 4<<32|9)}, eperm},
		{"MASKED_EQ", one("MASKED_EQ", 0xf<<32|0xf0, 3<<32|0x20), data{39, x64Audit, args(0, 0xa3<<32|0x12f)}, allow},
		{"MASKED_EQ, lower half", one("MASKED_EQ", 0xf<<32|0xf0, 3<<32|0x20), data{39, x64Audit, args(0, 0xa3<<32|0x13f)}, eperm},
		{"MASKED_EQ, upper half", one("MASKED_EQ", 0xf<<32|0xf0, 3<<32|0x20), data{39, x64Audit, args(0, 0xa4<<32|0x12f)}, eperm},
		{"MASKED_EQ without a mask", one("MASKED_EQ", 0, 9), data{39, x64Audit, args(0, 5)}, allow},
		{"MASKED_EQ of 32 bits", one("MASKED_EQ", 0xf<<32|0xf0, 3<<32|0x20), data{20, x86Audit, args(0, 0x12f)}, allow},

		{"two arguments", errno(`"syscalls":[` + rulesText("ALLOW", `"getpid"`, arg(0, "EQ", 1)+","+arg(2, "GT", 5)) + `]`), data{39, x64Audit, args(1, 0, 6)}, allow},
		{"two arguments, one of them", errno(`"syscalls":[` + rulesText("ALLOW", `"getpid"`, arg(0, "EQ", 1)+","+arg(2, "GT", 5)) + `]`), data{39, x64Audit, args(2, 0, 6)}, eperm},
		{"one argument twice", errno(`"syscalls":[` + rulesText("ALLOW", `"getpid"`, arg(0, "EQ", 1)+","+arg(0, "EQ", 2)) + `]`), data{39, x64Audit, args(2)}, allow},
		{"without conditions before", errno(`"syscalls":[` + rulesText("ALLOW", `"getpid"`, "") + "," + rulesText("KILL", `"getpid"`, arg(0, "EQ", 1)) + `]`), data{39, x64Audit, args(1)}, allow},
		{"without conditions after", errno(`"syscalls":[` + rulesText("KILL", `"getpid"`, arg(0, "EQ", 1)) + "," + rulesText("ALLOW", `"getpid"`, "") + `]`), data{39, x64Audit, args(1)}, allow},
		{"two without conditions", errno(`"syscalls":[` + rulesText("KILL", `"getpid"`, "") + "," + rulesText("ALLOW", `"getpid"`, "") + `]`), data{39, x64Audit, args()}, kill},
		{"the default action's rule", errno(`"syscalls":[` + rulesText("ERRNO", `"getpid"`, arg(0, "EQ", 1)) + "," + rulesText("ALLOW", `"getpid"`, arg(1, "EQ", 1)) + `]`), data{39, x64Audit, args(1, 1)}, allow},
		{"a name that nobody knows", errno(`"syscalls":[` + rulesText("ALLOW", `"frobnicate","getpid"`, "") + `]`), data{39, x64Audit, args()}, allow},

		{"newer than the profile", errno(`"syscalls":[` + rulesText("ALLOW", `"read","openat2"`, "") + `]`), data{438, x64Audit, args()}, enosys},
		{"newer, but of the default action", errno(`"syscalls":[` + rulesText("ALLOW", `"read"`, "") + "," + rulesText("ERRNO", `"openat2"`, "") + `]`), data{437, x64Audit, args()}, eperm},
		{"not newer", errno(`"syscalls":[` + rulesText("ALLOW", `"read","openat2"`, "") + `]`), data{436, x64Audit, args()}, eperm},
		{"newer on x86", errno(`"syscalls":[` + rulesText("ALLOW", `"read","openat2"`, "") + `]`), data{438, x86Audit, args()}, enosys},
		{"newer on x32", errno(`"syscalls":[` + rulesText("ALLOW", `"read","execve"`, "") + `]`), data{x32Bit | 521, x64Audit, args()}, enosys},
		{"newer, all allowed", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[` + rulesText("ERRNO", `"read"`, "") + `]}`, data{400, x64Audit, args()}, allow},
		{"newer, nothing named", errno(`"syscalls":[]`), data{400, x64Audit, args()}, eperm},
		{"arm's own numbers", `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_ARM"],"syscalls":[` + rulesText("ALLOW", `"read","cacheflush"`, "") + `]}`, data{0xf0002, armAudit, args()}, allow},
		{"newer on arm", `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_ARM"],"syscalls":[` + rulesText("ALLOW", `"read","cacheflush"`, "") + `]}`, data{4, armAudit, args()}, enosys},

		{"through socketcall", errno(`"syscalls":[` + rulesText("ALLOW", `"socket"`, "") + `]`), data{102, x86Audit, args(1)}, allow},
		{"another through socketcall", errno(`"syscalls":[` + rulesText("ALLOW", `"socket","sendmmsg"`, "") + `]`), data{102, x86Audit, args(2)}, eperm},
		{"through ipc", errno(`"syscalls":[` + rulesText("ALLOW", `"shmat","openat2"`, "") + `]`), data{117, x86Audit, args(21)}, allow},

		{"KILL", errno(`"syscalls":[` + rulesText("KILL", `"getpid"`, "") + `]`), data{39, x64Audit, args()}, kill},
		{"KILL_THREAD", errno(`"syscalls":[` + rulesText("KILL_THREAD", `"getpid"`, "") + `]`), data{39, x64Audit, args()}, kill},
		{"KILL_PROCESS", errno(`"syscalls":[` + rulesText("KILL_PROCESS", `"getpid"`, "") + `]`), data{39, x64Audit, args()}, unix.SECCOMP_RET_KILL_PROCESS},
		{"TRAP", errno(`"syscalls":[` + rulesText("TRAP", `"getpid"`, "") + `]`), data{39, x64Audit, args()}, unix.SECCOMP_RET_TRAP},
		{"LOG", errno(`"syscalls":[` + rulesText("LOG", `"getpid"`, "") + `]`), data{39, x64Audit, args()}, unix.SECCOMP_RET_LOG},
		{"TRACE", errno(`"syscalls":[` + rulesText("TRACE", `"getpid"`, "") + `]`), data{39, x64Audit, args()}, unix.SECCOMP_RET_TRACE | uint32(unix.EPERM)},
		{"errnoRet", errno(`"syscalls":[{"names":["getpid"],"action":"SCMP_ACT_ERRNO","errnoRet":38}]`), data{39, x64Audit, args()}, enosys},
		{"errnoRet of TRACE", errno(`"syscalls":[{"names":["getpid"],"action":"SCMP_ACT_TRACE","errnoRet":7}]`), data{39, x64Audit, args()}, unix.SECCOMP_RET_TRACE | 7},
		{"defaultErrnoRet", errno(`"defaultErrnoRet":13,"syscalls":[` + rulesText("ALLOW", `"openat2"`, "") + `]`), data{39, x64Audit, args()}, unix.SECCOMP_RET_ERRNO | 13},
		{"NOTIFY", errno(`"listenerPath":"/x","syscalls":[` + rulesText("NOTIFY", `"getpid"`, "") + `]`), data{39, x64Audit, args()}, unix.SECCOMP_RET_USER_NOTIF},
	} {
		p := profile(t, test.profile)
		f, err := Compile(p, specs.ArchX86_64)
		if err != nil {
			t.Errorf("%s: %v", test.what, err)
			continue
		}
		if got := verdict(t, f, test.data); got != test.want {
			t.Errorf("%s: %#x; want %#x", test.what, got, test.want)
		}
		if got := naive(p, specs.ArchX86_64, test.data); got != test.want {
			t.Errorf("%s, by looking: %#x; want %#x", test.what, got, test.want)
		}
	}
}

func TestFlags(t *testing.T) {
	for _, test := range []struct {
		profile string
		want    uint
	}{
		{`{"defaultAction":"SCMP_ACT_ALLOW"}`, unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW},
		{`{"defaultAction":"SCMP_ACT_ALLOW","flags":[]}`, 0},
		{`{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_TSYNC"]}`, 0},
		{`{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_LOG","SECCOMP_FILTER_FLAG_SPEC_ALLOW"]}`, unix.SECCOMP_FILTER_FLAG_LOG | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW},
		{`{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],"listenerPath":"/x","syscalls":[` + rulesText("NOTIFY", `"getpid"`, "") + `]}`, unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV | unix.SECCOMP_FILTER_FLAG_NEW_LISTENER},
	} {
		f, err := Compile(profile(t, test.profile), specs.ArchX86_64)
		if err != nil || f.Flags != test.want {
			t.Errorf("%s: %+v, %v; want flags %#x", test.profile, f, err, test.want)
		}
	}
	if f, err := Compile(&specs.LinuxSeccomp{}, specs.ArchX86_64); f != nil || err != nil {
		t.Errorf("a profile that says nothing: %v, %v", f, err)
	}
}

// TestFeatures: what is told to be known is.
func TestFeatures(t *testing.T) {
	known, supported := Flags()
	if len(supported) == 0 {
		t.Errorf("the kernel supports none of %q", known)
	}
	for _, p := range []struct {
		list    []string
		profile string
	}{
		{Actions(), `{"defaultAction":"SCMP_ACT_ERRNO","listenerPath":"/x","syscalls":[{"names":["read"],"action":"%s"}]}`},
		{Operators(), `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"%s"}]}]}`},
		{Archs(), `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["%s"]}`},
		{known, `{"defaultAction":"SCMP_ACT_ERRNO","listenerPath":"/x","flags":["%s"],"syscalls":[{"names":["read"],"action":"SCMP_ACT_NOTIFY"}]}`},
	} {
		if !slices.IsSorted(p.list) {
			t.Errorf("%q is not sorted", p.list)
		}
		for _, name := range p.list {
			if _, err := Compile(profile(t, fmt.Sprintf(p.profile, name)), specs.ArchX86_64); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestBadProfiles(t *testing.T) {
	for _, test := range []struct{ profile, want string }{
		{`{"defaultAction":"SCMP_ACT_SHRUG"}`, `unknown action "SCMP_ACT_SHRUG"`},
		{`{"syscalls":[` + rulesText("ALLOW", `"read"`, "") + `]}`, `unknown action ""`},
		{errno(`"syscalls":[` + rulesText("SHRUG", "", "") + `]`), `unknown action "SCMP_ACT_SHRUG"`},
		{errno(`"syscalls":[` + rulesText("ALLOW", `"read"`, arg(0, "LIKE", 1)) + `]`), `unknown operator "SCMP_CMP_LIKE"`},
		{errno(`"syscalls":[` + rulesText("ALLOW", `"read"`, arg(6, "EQ", 1)) + `]`), "argument 6"},
		{errno(`"syscalls":[` + rulesText("ALLOW", `""`, "") + `]`), "without a name"},
		{errno(`"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","errnoRet":1}]`), "takes no errnoRet"},
		{errno(`"syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO","errnoRet":65536}]`), "is no errno"},
		{errno(`"syscalls":[` + rulesText("NOTIFY", `"read"`, "") + `]`), "without a listenerPath"},
		{errno(`"listenerMetadata":"x"`), "listenerMetadata without"},
		{errno(`"flags":["SECCOMP_FILTER_FLAG_HURRY"]`), "unknown flag"},
		{errno(`"flags":["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]`), "without the action"},
		{`{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_PDP11"]}`, `unknown architecture "SCMP_ARCH_PDP11"`},
		{errno(`"syscalls":[` + rulesText("ALLOW", `"read"`, arg(0, "EQ", 1)) + "," + rulesText("KILL", `"read"`, arg(0, "EQ", 1)) + `]`), "two actions for the same arguments: system call read"},
	} {
		if _, err := Compile(profile(t, test.profile), specs.ArchX86_64); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v; want %q", test.profile, err, test.want)
		}
	}
	if _, err := Compile(profile(t, `{"defaultAction":"SCMP_ACT_ALLOW"}`), specs.ArchS390X); !errors.Is(err, ErrUnsupported) {
		t.Errorf("on a machine without a table: %v", err)
	}
	long := profile(t, errno(`"syscalls":[]`))
	for i := range uint64(2000) {
		long.Syscalls = append(long.Syscalls, specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: uint(i % 6), Value: i, Op: specs.OpEqualTo}}})
	}
	if _, err := Compile(long, specs.ArchX86_64); !errors.Is(err, ErrTooLong) {
		t.Errorf("a long profile: %v", err)
	}
}

// compare asks the program and the profile about every number that is or
// could be one, and about arguments around those of the conditions.
func compare(t *testing.T, p *specs.LinuxSeccomp, native specs.Arch, random *rand.Rand, rounds int) {
	t.Helper()
	f, err := Compile(p, native)
	if err != nil {
		if errors.Is(err, ErrInvalid) || errors.Is(err, ErrTooLong) {
			return
		}
		t.Fatal(err)
	}
	if len(f.Program) > unix.BPF_MAXINSNS {
		t.Fatalf("%d instructions", len(f.Program))
	}
	values := []uint64{0, 1, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 1<<64 - 1}
	var names []string
	for _, call := range p.Syscalls {
		names = append(names, call.Names...)
		for _, a := range call.Args {
			values = append(values, a.Value, a.ValueTwo, a.Value-1, a.Value+1, a.Value^1<<32, a.Value^1<<40)
		}
	}
	names = append(names, "socketcall", "ipc", "read")
	ask := func(d data) {
		if got, want := verdict(t, f, d), naive(p, native, d); got != want {
			text, _ := json.Marshal(p)
			t.Fatalf("%+v: %#x; want %#x of\n%s", d, got, want, text)
		}
	}
	for range rounds {
		a := arches[random.IntN(len(arches))]
		d := data{number: a.first + random.Uint32N(600), audit: a.audit}
		switch random.IntN(8) {
		case 0:
			d.number = random.Uint32()
		case 1:
			d.number = []uint32{0xf0000, 0xf0002, 0xf0007, x32Bit - 1, x32Bit, 1<<31 + 5, 1<<32 - 1}[random.IntN(7)]
		case 2:
			d.audit = random.Uint32()
		default:
			s := lookup(names[random.IntN(len(names))])
			if i := random.IntN(len(arches)); s != nil && s.numbers[i] >= 0 {
				d = data{number: arches[i].first + uint32(s.numbers[i]), audit: arches[i].audit}
			}
		}
		for i := range d.args {
			d.args[i] = values[random.IntN(len(values))]
			if random.IntN(4) == 0 {
				d.args[i] = random.Uint64N(30)
			}
		}
		ask(d)
	}
}

// TestDockers: Docker's profile, whole, on both kinds of machines.
func TestDockers(t *testing.T) {
	for _, caps := range [][]string{nil, {"CAP_SYS_CHROOT"}, {"CAP_SYS_ADMIN", "CAP_BPF"}} {
		p := dockers(t, caps...)
		compare(t, p, specs.ArchX86_64, rand.New(rand.NewPCG(1, 2)), 20000)
		p.Architectures = []specs.Arch{specs.ArchAARCH64, specs.ArchARM}
		compare(t, p, specs.ArchAARCH64, rand.New(rand.NewPCG(1, 2)), 20000)
		f, err := Compile(p, specs.ArchAARCH64)
		if err != nil {
			t.Fatal(err)
		}
		for number, want := range map[uint32]uint32{63: allow, 40: eperm, 500: enosys} {
			if caps != nil && caps[0] == "CAP_SYS_ADMIN" && number == 40 { // mount
				want = allow
			}
			if got := verdict(t, f, data{number: number, audit: a64Audit}); got != want {
				t.Errorf("%q: %d on arm64: %#x; want %#x", caps, number, got, want)
			}
		}
	}
}

// TestShallow: a system call of Docker's profile is found in few steps.
func TestShallow(t *testing.T) {
	f, err := Compile(dockers(t), specs.ArchX86_64)
	if err != nil {
		t.Fatal(err)
	}
	most := 0
	for n := range uint32(480) {
		_, steps, err := interpret(f.Program, data{number: n, audit: x64Audit})
		if err != nil {
			t.Fatal(err)
		}
		if n != 41 && n != 135 && n != 56 { // their arguments are asked
			most = max(most, steps)
		}
	}
	if most > 12 {
		t.Errorf("a system call takes %d of %d instructions; want at most 12", most, len(f.Program))
	}
}

// TestTableIsFresh: the table is that of the x/sys that we build with.
func TestTableIsFresh(t *testing.T) {
	out, err := exec.Command("go", "run", "./mktables").Output()
	if err != nil {
		t.Fatal(err)
	}
	have, err := os.ReadFile("zsyscalls.go")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out, have) {
		t.Error("zsyscalls.go is not what mktables makes of golang.org/x/sys; run go generate")
	}
	for name, want := range map[string][len(arches)]int32{
		"read":       {0, 0, 3, 63, 3},
		"openat2":    {437, 437, 437, 437, 437},
		"execve":     {59, 520, 11, 221, 11},
		"socketcall": {-1, -1, 102, -1, -1},
		"open":       {2, 2, 5, -1, 5},
		"cacheflush": {-1, -1, -1, -1, 0xf0002},
		"listns":     {470, 470, 470, 470, 470},
	} {
		if s := lookup(name); s == nil || s.numbers != want {
			t.Errorf("%s: %v; want %v", name, s, want)
		}
	}
}

// FuzzCompile: whatever a profile says, there is no panic, the program fits,
// and it says what the profile says.
func FuzzCompile(f *testing.F) {
	f.Add([]byte("\x05\x01\x02\x03read"), uint64(1))
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27}, uint64(2))
	f.Fuzz(func(t *testing.T, text []byte, seed uint64) {
		p := anyProfile(text)
		native := []specs.Arch{specs.ArchX86_64, specs.ArchAARCH64}[seed%2]
		compare(t, p, native, rand.New(rand.NewPCG(seed, 0)), 300)
	})
}

// anyProfile makes a profile of bytes.
func anyProfile(text []byte) *specs.LinuxSeccomp {
	next := func(n int) int {
		if len(text) == 0 {
			return 0
		}
		b := int(text[0])
		text = text[1:]
		return b % n
	}
	actions := []specs.LinuxSeccompAction{
		specs.ActErrno, specs.ActAllow, specs.ActKill, specs.ActTrap, specs.ActTrace, specs.ActLog, specs.ActNotify, specs.ActKillProcess, "SCMP_ACT_SHRUG",
	}
	ops := []specs.LinuxSeccompOperator{
		specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpGreaterThan, specs.OpGreaterEqual, specs.OpMaskedEqual, "SCMP_CMP_LIKE",
	}
	value := func() (v uint64) {
		switch next(4) {
		case 0:
			return uint64(next(8))
		case 1:
			return 1 << next(64)
		}
		for range 8 {
			v = v<<8 | uint64(next(256))
		}
		return v
	}
	p := &specs.LinuxSeccomp{DefaultAction: actions[next(len(actions))], ListenerPath: "/agent"}
	for range next(4) {
		p.Architectures = append(p.Architectures, arches[next(len(arches))].name)
	}
	common := []string{"read", "socket", "semop", "socketcall", "ipc", "ioctl", "cacheflush", "execve", "nosuchcall", "sendmmsg"}
	for len(text) > 0 {
		call := specs.LinuxSyscall{Action: actions[next(len(actions))]}
		for range 1 + next(3) {
			if next(3) == 0 {
				call.Names = append(call.Names, syscalls[(256*next(2)+next(256))%len(syscalls)].name)
			} else {
				call.Names = append(call.Names, common[next(len(common))])
			}
		}
		if next(4) == 0 {
			e := uint(next(200))
			call.ErrnoRet = &e
		}
		for range next(4) {
			call.Args = append(call.Args, specs.LinuxSeccompArg{Index: uint(next(7)), Op: ops[next(len(ops))], Value: value(), ValueTwo: value()})
		}
		p.Syscalls = append(p.Syscalls, call)
	}
	return p
}

func BenchmarkCompile(b *testing.B) {
	p := dockers(b, "CAP_SYS_CHROOT")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Compile(p, specs.ArchX86_64); err != nil {
			b.Fatal(err)
		}
	}
}
