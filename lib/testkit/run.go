package testkit

import (
	"encoding/json"
	"flag"
	"os"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// Options say what the test's host has.
type Options struct {
	// Outside gives a way to the outside, with names (slirp4netns, tap0).
	Outside bool
	// NoStore leaves SHOCKER_ROOT an empty directory that is not on btrfs.
	NoStore bool
	// StoreSize is the size of the store in bytes, 4 GiB if 0. It is sparse.
	StoreSize int64
	// Writable are files and directories of the machine that the test writes
	// to, as absolute paths. Whatever else it writes outside of Host.Dir is
	// gone with the host.
	Writable []string
}

// stageEnv carries a config to the second and third process.
const stageEnv = "SHOCKER_TESTKIT"

const (
	stageInit = "init"
	stageTest = "test"
)

// config is what the inner processes know of the outer one.
type config struct {
	Stage   string
	Test    string // full name of the test
	Dir     string // of this test, on the machine's own file system
	Args    []string
	Cgroups []hierarchy
	Options
}

var (
	names   = map[string]bool{}
	namesMu sync.Mutex
)

// Run calls f on a private host. A test calls it once, and does nothing else
// of weight: what stands around the call is executed in both processes, unless
// it asks [Inside].
func Run(t *testing.T, o Options, f func(t *testing.T, h *Host)) {
	t.Helper()
	if text := os.Getenv(stageEnv); text != "" {
		var c config
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			t.Fatalf("%s: %v", stageEnv, err)
		}
		if c.Test != t.Name() {
			t.Fatalf("this is the host of %s: hosts cannot be nested", c.Test)
		}
		if c.Stage == stageInit {
			os.Exit(beInit(c))
		}
		h, err := newHost(c)
		if err != nil {
			t.Fatal(err)
		}
		f(t, h)
		return
	}
	namesMu.Lock()
	used := names[t.Name()]
	names[t.Name()] = true
	namesMu.Unlock()
	if used {
		t.Fatal("testkit.Run a second time in one test, or with -count: use a subtest, or several processes")
	}
	Requires(t, "root", "btrfs")
	if o.Outside {
		Requires(t, "slirp4netns")
	}
	if err := built(); err != nil {
		t.Fatal(err)
	}
	// The inner processes die with the thread that started them, so that a
	// killed test leaves none.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	o2, err := prepare(t, o)
	if err != nil {
		t.Fatalf("prepare the test host: %v", err)
	}
	out, err := o2.run(t)
	replay(t, out, err)
}

// Inside tells whether this process is one of a test host.
func Inside() bool { return inside }

var inside = os.Getenv(stageEnv) != ""

// Patience is d, or more of it on a machine that is emulated: for limits that
// no test should ever reach.
func Patience(d time.Duration) time.Duration {
	if os.Getenv("VM_ACCEL") == "tcg" {
		return 10 * d
	}
	return d
}

// innerArgs is the command line that runs the named test and nothing else.
func innerArgs(test string) []string {
	var elems []string
	for elem := range strings.SplitSeq(test, "/") {
		elems = append(elems, "^"+regexp.QuoteMeta(elem)+"$")
	}
	args := []string{"-test.run=" + strings.Join(elems, "/"), "-test.timeout=0", "-test.count=1"}
	flag.Visit(func(f *flag.Flag) {
		if f.Name == "test.short" || !strings.HasPrefix(f.Name, "test.") {
			args = append(args, "-"+f.Name+"="+f.Value.String())
		}
	})
	return args
}
