// Package systemd makes cgroups through systemd, as a transient scope a
// container, for hosts whose cgroups belong to it (--systemd-cgroup). It speaks
// D-Bus: by the system bus, or, where no bus runs, by systemd's own socket. See
// org.freedesktop.systemd1(5) and systemd.resource-control(5).
package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/godbus/dbus/v5"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"shocker.sh/lib/cgroup"
)

const (
	booted  = "/run/systemd/system" // sd_booted(3)
	private = "unix:path=/run/systemd/private"

	name      = "org.freedesktop.systemd1"
	path      = dbus.ObjectPath("/org/freedesktop/systemd1")
	iface     = name + ".Manager"
	jobSignal = iface + ".JobRemoved"
)

// jobTimeout limits how long systemd may take to start or stop a scope.
const jobTimeout = 30 * time.Second

// Manager is the systemd of this machine.
type Manager struct{}

var _ cgroup.Manager = Manager{}

// Running is an error where systemd does not run.
func Running() error {
	info, err := os.Lstat(booted)
	if err != nil || !info.IsDir() {
		return fmt.Errorf("%w (there is no %s): leave --systemd-cgroup out", ErrNotRunning, booted)
	}
	return nil
}

// Start implements [cgroup.Manager]. A unit of that name that has failed is
// forgotten first.
func (Manager) Start(ctx context.Context, u cgroup.Unit, pid int) error {
	properties, err := unitProperties(u, pid)
	if err != nil {
		return err
	}
	return do(ctx, func(c *conn) error {
		start := func() error {
			return c.job(ctx, "StartTransientUnit", u.Name, "replace", properties, []aux{})
		}
		err := start()
		if named(err, name+".UnitExists") {
			if c.call(ctx, nil, "ResetFailedUnit", u.Name) == nil {
				err = start()
			}
		}
		if err != nil {
			return fmt.Errorf("start %s in %s: %w", u.Name, u.Slice, err)
		}
		return nil
	})
}

// Set implements [cgroup.Manager].
func (Manager) Set(ctx context.Context, u cgroup.Unit, version int, r *specs.LinuxResources) error {
	properties, err := limits(version, r)
	if err != nil || len(properties) == 0 {
		return err
	}
	return do(ctx, func(c *conn) error {
		set := func(p []property) error { return c.call(ctx, nil, "SetUnitProperties", u.Name, true, p) }
		err := set(properties)
		if i := slices.IndexFunc(properties, idle); named(err, "org.freedesktop.DBus.Error.InvalidArgs") && i >= 0 {
			// Before systemd 252 a weight of 0 meant nothing. The kernel is
			// told by us.
			err = set(slices.Delete(properties, i, i+1))
		}
		if err != nil {
			return fmt.Errorf("set properties of %s: %w", u.Name, err)
		}
		return nil
	})
}

// Stop implements [cgroup.Manager].
func (Manager) Stop(ctx context.Context, u cgroup.Unit) error {
	return do(ctx, func(c *conn) error {
		err := c.job(ctx, "StopUnit", u.Name, "replace")
		if named(err, name+".NoSuchUnit") {
			return nil
		}
		if err != nil {
			return fmt.Errorf("stop %s: %w", u.Name, err)
		}
		err = c.call(ctx, nil, "ResetFailedUnit", u.Name)
		if err != nil && !named(err, name+".NoSuchUnit") {
			return fmt.Errorf("reset %s: %w", u.Name, err)
		}
		return nil
	})
}

// conn is a connection to systemd.
type conn struct {
	*dbus.Conn
	manager dbus.BusObject
	signals chan *dbus.Signal
}

// do calls f with a connection.
func do(ctx context.Context, f func(*conn) error) (retErr error) {
	if err := Running(); err != nil {
		return err
	}
	c, err := connect(ctx)
	if err != nil {
		return fmt.Errorf("connect to systemd: %w", err)
	}
	defer func() { retErr = errors.Join(retErr, c.Close()) }()
	return f(c)
}

func connect(ctx context.Context) (_ *conn, retErr error) {
	bus, err := dbus.ConnectSystemBus(dbus.WithContext(ctx))
	direct := err != nil
	if direct {
		// As root, without a bus. There is no Hello to say to a peer.
		var perr error
		if bus, perr = dbus.Dial(private, dbus.WithContext(ctx)); perr == nil {
			if perr = bus.Auth(nil); perr != nil {
				perr = errors.Join(perr, bus.Close())
			}
		}
		if perr != nil {
			return nil, errors.Join(err, perr)
		}
	}
	defer func() {
		if retErr != nil {
			retErr = errors.Join(retErr, bus.Close())
		}
	}()
	c := &conn{Conn: bus, manager: bus.Object(name, path), signals: make(chan *dbus.Signal, 64)}
	bus.Signal(c.signals)
	if direct { // which sends all signals to all peers
		return c, nil
	}
	if err := bus.AddMatchSignalContext(ctx, dbus.WithMatchInterface(iface), dbus.WithMatchMember("JobRemoved")); err != nil {
		return nil, err
	}
	return c, c.call(ctx, nil, "Subscribe")
}

// call calls a method of systemd's manager object; result takes what it
// returns, if it is not nil.
func (c *conn) call(ctx context.Context, result any, method string, args ...any) error {
	call := c.manager.CallWithContext(ctx, iface+"."+method, 0, args...)
	if result == nil {
		return call.Err
	}
	return call.Store(result)
}

// job calls a method that begins a job, and waits for its end.
func (c *conn) job(ctx context.Context, method string, args ...any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, jobTimeout, ErrTimeout)
	defer cancel()
	var job dbus.ObjectPath
	if err := c.call(ctx, &job, method, args...); err != nil {
		return err
	}
	for {
		select {
		case s, ok := <-c.signals:
			if !ok {
				return fmt.Errorf("%w: the connection was closed", ErrJob)
			}
			// JobRemoved(u id, o job, s unit, s result)
			if s.Name != jobSignal || len(s.Body) != 4 || s.Body[1] != job {
				continue
			}
			if s.Body[3] != "done" {
				return fmt.Errorf("%w: %v", ErrJob, s.Body[3])
			}
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// named says whether an error is the D-Bus error of that name.
func named(err error, name string) bool {
	var e dbus.Error
	return errors.As(err, &e) && e.Name == name
}
