package cgroup

import (
	"errors"
	"fmt"

	"shocker.sh/lib/spawn"
)

// keeper is a process that only waits. A scope is made around a process, and
// ends with its last; but the group has to be there before the container's first
// process is, whose mounts may show it. The keeper ends when we do.
type keeper struct {
	table *spawn.Table
	proc  *spawn.Process
}

func newKeeper() (_ *keeper, err error) {
	k := &keeper{}
	if k.table, err = spawn.NewTable(); err == nil {
		k.table.Wait("keep the cgroup")
		k.proc, err = k.table.Start(spawn.Options{})
	}
	if err != nil {
		if k.table != nil {
			k.table.Close()
		}
		return nil, fmt.Errorf("start a process to keep the cgroup: %w", err)
	}
	return k, nil
}

func (k *keeper) pid() int { return k.proc.Pid() }

func (k *keeper) end() error {
	err := k.proc.Kill()
	k.proc.Close()
	if err != nil {
		err = errors.Join(errors.New("end the process that keeps the cgroup"), err)
	}
	return err
}
