package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/cgroup/group"
	"shocker.sh/lib/record"
	"shocker.sh/lib/stage"
	"shocker.sh/lib/store"
	"shocker.sh/lib/testkit"
	"shocker.sh/lib/undo"
)

// machine is a host with a store, for containers that are made by hand.
type machine struct {
	*testing.T
	stage.Host
	st *store.Store
}

func on(t *testing.T, f func(m machine)) {
	t.Helper()
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		st, err := store.Open(h.Store, func(string) {})
		if err != nil {
			t.Fatal(err)
		}
		f(machine{t, stage.Host{Store: h.Store, Run: h.RunDir, CgroupRoot: h.CgroupRoot, CgroupParent: "/"}, st})
	})
}

func (m machine) check(errs ...error) {
	m.Helper()
	for _, err := range errs {
		if err != nil {
			m.Fatal(err)
		}
	}
}

// make makes a container; its record names the cgroup if there is one.
func (m machine) make(id, group string) *undo.Log {
	m.Helper()
	r, err := record.Parse(fmt.Appendf(nil, `{"annotations":{"sh.shocker.id":%q}}`, id))
	m.check(err)
	if group != "" {
		m.check(r.Set(group, "linux", "cgroupsPath"))
	}
	dir, err := m.MakeRun(id)
	m.check(err)
	log := undo.Open(dir)
	m.check(m.st.PutContainer(r, log.Push))
	return log
}

// dirs are the cgroup's, one in each hierarchy.
func (m machine) dirs(group string) (dirs []string) {
	if m.CgroupV2() {
		return []string{filepath.Join(m.CgroupRoot, group)}
	}
	hierarchies, err := os.ReadDir(m.CgroupRoot)
	m.check(err)
	for _, h := range hierarchies {
		if h.IsDir() {
			dirs = append(dirs, filepath.Join(m.CgroupRoot, h.Name(), group))
		}
	}
	return dirs
}

// live puts a process into the cgroup and returns what ends it.
func (m machine) live(group string) (end func()) {
	m.Helper()
	cmd := exec.Command("sleep", "1000")
	m.check(cmd.Start())
	for _, dir := range m.dirs(group) {
		if strings.HasPrefix(dir, filepath.Join(m.CgroupRoot, "cpuset")) {
			continue // it takes none before it has processors
		}
		m.check(os.MkdirAll(dir, 0o755))
		m.check(os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, cmd.Process.Pid), 0))
	}
	return func() {
		m.check(cmd.Process.Kill())
		cmd.Wait()
	}
}

func (m machine) freeze(group string, on bool) {
	m.Helper()
	file, text := filepath.Join(m.CgroupRoot, "freezer", group, "freezer.state"), "THAWED"
	if on {
		text = "FROZEN"
	}
	if m.CgroupV2() {
		file, text = filepath.Join(m.CgroupRoot, group, "cgroup.freeze"), "0"
		if on {
			text = "1"
		}
	}
	m.check(os.WriteFile(file, []byte(text), 0))
	if on {
		// On cgroup v1 nothing ends what is frozen, not even the end of the host.
		m.Cleanup(func() {
			if _, err := os.Stat(file); err == nil {
				m.freeze(group, false)
			}
		})
	}
}

// status waits for the state that the kernel comes to tell.
func (m machine) status(what, id string, want Status) {
	m.Helper()
	testkit.Eventually(m, 10*time.Second, func() error {
		c, err := Get(m.Host, m.st, id)
		if err == nil && c.Status != want {
			err = fmt.Errorf("%s: it is %s; want %s", what, c.Status, want)
		}
		return err
	})
}

// TestStatus: the kernel decides what runs; only of what does not, the files
// tell whether it ever did.
func TestStatus(t *testing.T) {
	on(t, func(m machine) {
		started := &store.State{Created: time.Now(), Started: time.Now()}
		for i, test := range []struct {
			what                            string
			group, below, processes, frozen bool
			started, finished, hook, byUndo bool
			want                            Status
		}{
			{what: "just made", want: Created},
			{what: "made, with a cgroup", group: true, want: Created},
			{what: "running", group: true, processes: true, started: true, want: Running},
			{what: "running, and nobody wrote it down", group: true, processes: true, want: Running},
			{what: "running, and said to have ended", group: true, processes: true, started: true, finished: true, want: Running},
			{what: "running in a group below", group: true, below: true, processes: true, started: true, want: Running},
			{what: "paused", group: true, processes: true, frozen: true, started: true, want: Paused},
			{what: "frozen without a process", group: true, frozen: true, started: true, want: Exited},
			{what: "ended", group: true, started: true, finished: true, want: Exited},
			{what: "ended, and nobody wrote it down", group: true, started: true, want: Exited},
			{what: "ended, and its cgroup is gone", started: true, want: Exited},
			{what: "ended under another's last stage", group: true, hook: true, want: Exited},
			{what: "running, its cgroup known to the undo", group: true, byUndo: true, processes: true, want: Running},
		} {
			id := fmt.Sprintf("ps_%d", i)
			group := "/" + id
			inRecord := group
			if test.byUndo || !test.group {
				inRecord = ""
			}
			log := m.make(id, inRecord)
			var dirs []undo.Dir
			if test.group {
				for _, dir := range m.dirs(group) {
					var st unix.Stat_t
					m.check(os.Mkdir(dir, 0o755), unix.Stat(dir, &st))
					dirs = append(dirs, undo.Dir{Path: dir, Ino: st.Ino})
				}
				m.check(log.Push(&undo.Entry{Stage: "shocker-cg", Class: undo.Rm, Op: undo.OpCgroup, Dirs: dirs}))
			}
			if test.started {
				state := *started
				if test.finished {
					state.Finished = time.Now()
				}
				m.check(m.st.PutState(id, &state))
			}
			if test.hook {
				m.check(Poststop(m.RunDir(id)))
			}
			end := func() {}
			if test.processes {
				in := group
				if test.below {
					in += "/below"
				}
				end = m.live(in)
			}
			if test.frozen {
				m.freeze(group, true)
			}
			m.status(test.what, id, test.want)
			if test.frozen {
				m.freeze(group, false)
			}
			end()
			if test.processes {
				want := Created
				if test.started {
					want = Exited
				}
				m.status(test.what+", and its processes have ended", id, want)
			}
			m.check(Remove(m.Host, m.st, id))
			if _, err := Get(m.Host, m.st, id); !errors.Is(err, store.ErrNoContainer) {
				m.Errorf("%s: after Remove: %v", test.what, err)
			}
			for _, d := range dirs {
				if _, err := os.Stat(d.Path); !errors.Is(err, fs.ErrNotExist) {
					m.Errorf("%s: after Remove there is %s: %v", test.what, d.Path, err)
				}
			}
		}
	})
}

// TestRemoveTwice: also what is half removed, and what was never there.
func TestRemoveTwice(t *testing.T) {
	on(t, func(m machine) {
		m.make("ps_1", "")
		m.check(m.st.TakeName("web", "ps_1"))
		m.check(Remove(m.Host, m.st, "ps_1"), Remove(m.Host, m.st, "ps_1"), Remove(m.Host, m.st, "ps_2"))
		m.make("ps_1", "")
		m.check(os.RemoveAll(m.RunDir("ps_1"))) // as a restart of the machine does
		m.check(Remove(m.Host, m.st, "ps_1"))
		if all, err := List(m.Host, m.st); err != nil || len(all) != 0 {
			m.Errorf("List = %v, %v; want none", all, err)
		}
	})
}

// TestLeftovers: only what gc would do something about.
func TestLeftovers(t *testing.T) {
	on(t, func(m machine) {
		count := func(what string, want int) {
			m.Helper()
			if n := Leftovers(m.Host, m.st); n != want {
				m.Errorf("%s: %d leftovers; want %d", what, n, want)
			}
		}
		count("before anything", 0)
		log := m.make("ps_1", "/ps_1")
		m.check(log.Push(&undo.Entry{Stage: "shocker-net", Class: undo.Exit, Op: undo.OpUnlink, Path: "/nowhere"}))
		count("parked", 0)
		busy, err := log.Begin("shocker-net")
		m.check(err)
		count("a command is at work", 0)
		mark := filepath.Join(m.RunDir("ps_1"), "busy", "killed")
		m.check(busy.Done(), os.WriteFile(mark, nil, 0o600))
		count("a command was killed", 1)
		end := m.live("/ps_1")
		count("a command was killed after the program had started", 0)
		m.check(os.Remove(mark), m.st.PutState("ps_1", &store.State{Started: time.Now()}))
		end()
		m.status("ended", "ps_1", Exited)
		count("nobody cleans up", 1)
		lock, err := os.Create(filepath.Join(m.RunDir("ps_1"), SupervisorLock))
		m.check(err, unix.Flock(int(lock.Fd()), unix.LOCK_EX))
		count("the supervisor cleans up", 0)
		m.check(lock.Close())
		count("the supervisor was killed", 1)
		m.check(log.Replay("", undo.Exit))
		count("ended in order", 0)
		m.check(os.Mkdir(filepath.Join(m.Host.Run, "other"), 0o755))
		count("a directory of another's", 0)
		taken, err := undo.Open(m.RunDir("ps_2")).Take("shocker-spec")
		m.check(err)
		count("being made", 0)
		m.check(taken.Done(), os.WriteFile(filepath.Join(m.RunDir("ps_2"), "busy", "killed"), nil, 0o600))
		count("killed before the container was there", 1)
	})
}

// TestTwoStores: stores whose containers have their cgroups below one parent
// leave each other's alone, also where ids are the same.
func TestTwoStores(t *testing.T) {
	on(t, func(m machine) {
		other := m
		other.Host.Store, other.Host.Run = filepath.Join(m.Host.Store, "other"), m.Host.Run+".other"
		m.check(os.Mkdir(other.Host.Store, 0o755))
		st, err := store.Open(other.Host.Store, func(string) {})
		m.check(err)
		other.st = st
		sweep := func(what string, m machine, want error) {
			m.Helper()
			if err := SweepOrphans(m.Host, m.st); !errors.Is(err, want) {
				m.Errorf("%s: SweepOrphans = %v; want %v", what, err, want)
			}
		}
		there := func(what, id string, want bool) {
			m.Helper()
			for _, dir := range m.dirs("/" + id) {
				if _, err := os.Stat(dir); (err == nil) != want {
					m.Errorf("%s: %s is there: %v; want %v", what, dir, err == nil, want)
				}
			}
		}
		log := m.make("ps_1", "/ps_1")
		g, err := group.New(m.CgroupRoot, "/ps_1")
		m.check(err)
		g.Owner = m.Host.Owner()
		_, err = g.Make(log, false, group.Controllers{})
		m.check(err)
		for _, dir := range m.dirs("/ps_2") { // by one that cannot mark it
			m.check(os.Mkdir(dir, 0o755|os.ModeSticky))
		}
		sweep("the other, of an empty one", other, nil)
		there("the other's sweep", "ps_1", true)
		end := m.live("/ps_1")
		sweep("the other, of one with processes", other, nil)

		// The other has one of that id, which has lost its run dir, and whose
		// record, if it can be read at all, names that group.
		for _, record := range []string{"", `{"annotations":{"sh.shocker.id":"ps_1"},"linux":{"cgroupsPath":"/ps_1"}}`} {
			m.check(os.MkdirAll(other.st.Container("ps_1"), 0o755))
			m.check(os.WriteFile(filepath.Join(other.st.Container("ps_1"), "config.json"), []byte(record), 0o600))
			m.check(RunsUnknown(other.Host, "ps_1"), Remove(other.Host, other.st, "ps_1"))
			m.status("the other has removed its own", "ps_1", Running)
		}

		m.check(os.RemoveAll(m.RunDir("ps_1")), os.RemoveAll(m.st.Container("ps_1")))
		sweep("forgotten, and it runs", m, ErrOrphan)
		end()
		m.check(os.RemoveAll(other.Host.Run))
		sweep("forgotten", m, nil)
		there("its own sweep", "ps_1", false)
		there("its own sweep", "ps_2", true)
	})
}
