// Package legacy lets the containers pass where x_tables, the packet filter
// that the kernel had before nftables, drops what is forwarded. nftables knows
// nothing of its chains. Here they are read from the kernel, and written by
// the program that whoever has filled them has: iptables-legacy.
package legacy

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"shocker.sh/lib/trust"
)

const (
	program = "iptables-legacy"
	comment = "shocker" // marks our rules
	// wait is for how many seconds the program waits for another that changes
	// the table.
	wait = "30"
)

// Dropping names the chain of others whose policy drops what is forwarded, or
// the one that Docker left there for administrators; "" if none drops.
func Dropping() (string, error) {
	t, err := read()
	if err != nil || t == nil || t.policy != verdictDrop {
		return "", err
	}
	if _, ok := t.chains[dockerUser]; ok {
		return dockerUser, nil
	}
	return forward, nil
}

// Accepts says whether the chain accepts all that comes from the bridge, and
// all that goes to it, be it by our rules or by somebody's.
func Accepts(chain, bridge string) (bool, error) {
	t, err := read()
	if err != nil || t == nil {
		return false, err
	}
	for _, way := range ways {
		if !slices.ContainsFunc(t.chains[chain], func(r rule) bool { return r.accepts(way, bridge) }) {
			return false, nil
		}
	}
	return true, nil
}

// ways are the options for packets from an interface and to it.
var ways = []string{"-o", "-i"}

// Accept puts "-i BRIDGE -j ACCEPT" and "-o BRIDGE -j ACCEPT" at the head of a
// chain, unless they are there. The program inherits lock: what the lock keeps
// from others lasts until the program has ended, even if we are killed.
func Accept(chain, bridge string, lock *os.File) error {
	if strings.HasSuffix(bridge, "+") {
		return fmt.Errorf("bridge %s: %w", bridge, ErrName)
	}
	t, err := read()
	if err != nil {
		return err
	}
	for _, way := range ways {
		if t != nil && slices.ContainsFunc(t.chains[chain], func(r rule) bool { return r.accepts(way, bridge) }) {
			continue
		}
		if err := iptables(lock, "-I", chain, way, bridge); err != nil {
			return fmt.Errorf("accept %s in chain %s of %s, which drops what is forwarded: %w", bridge, chain, program, err)
		}
	}
	if ok, err := Accepts(chain, bridge); err != nil || !ok {
		return errors.Join(err, fmt.Errorf("accept %s in chain %s of %s: %w", bridge, chain, program, ErrVanished))
	}
	return nil
}

// Withdraw takes our rules out again. A chain that is gone has none. The lock
// is as for Accept.
func Withdraw(chain, bridge string, lock *os.File) error {
	t, err := read()
	if err != nil || t == nil {
		return err
	}
	for _, way := range ways {
		for _, r := range t.chains[chain] {
			if !r.accepts(way, bridge) || r.comment != comment {
				continue
			}
			if err := iptables(lock, "-D", chain, way, bridge); err != nil {
				return fmt.Errorf("withdraw rules from chain %s of %s: %w", chain, program, err)
			}
		}
	}
	return nil
}

// iptables has the program insert or delete a rule of ours.
func iptables(lock *os.File, verb, chain, way, bridge string) error {
	path, err := find()
	if err != nil {
		return err
	}
	cmd := exec.Command(path, "-w", wait, verb, chain, way, bridge, "-m", "comment", "--comment", comment, "-j", "ACCEPT")
	cmd.Env = []string{} // it reads the names of plugins from there
	cmd.ExtraFiles = []*os.File{lock}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", path, err, bytes.TrimSpace(out))
	}
	return nil
}

// find looks for the program along PATH, and where administrators' programs
// are, in directories that only root can write.
func find() (string, error) {
	var errs []error
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		path := filepath.Join(dir, program)
		err := trust.Program(path)
		if err == nil {
			return path, nil
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			errs = append(errs, err)
		}
	}
	return "", errors.Join(append(errs, ErrNoProgram)...)
}
