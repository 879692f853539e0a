// Package net is shocker-net, the stage that makes a container's user and
// network namespace together and connects them: a veth pair to the bridge, an
// address, NAT. A network namespace has to be born inside the user namespace,
// or /sys could not be mounted in it, lo not set up and port 80 not bound.
//
// For the host, once and for all containers:
//
//	RUN/.net/host.json   what was made of bridge, forwarding and rules (undo)
//	RUN/.net/leases/A    the id of the container that has address A
package net

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/applet"
	"shocker.sh/lib/record"
	"shocker.sh/lib/spawn"
	"shocker.sh/lib/stage"
	"shocker.sh/lib/sys"
	"shocker.sh/lib/undo"
)

// Name of the stage.
const Name = "shocker-net"

// Stage is shocker-net.
var Stage = applet.Stage{
	Name:     Name,
	Synopsis: "namespaces, addresses and NAT for containers",
	Description: "up makes the user and the network namespace of each record, pins both in the\n" +
		"run dir and writes their paths into the record. The first container also makes the\n" +
		"bridge, IP forwarding and the NAT rules; what was there before is left alone.",
	Flags: []cli.Flag{
		&cli.StringFlag{Name: "network", Usage: "network `MODE`: bridge, none (only loopback), or host (the host's own)", DefaultText: "bridge"},
	},
	Open:     open,
	Commands: commands,
}

// Applet is the stage as a program.
var Applet = Stage.Applet()

// The kinds of network.
const (
	modeBridge = "bridge"
	modeNone   = "none"
	modeHost   = "host"
)

type handler struct {
	host stage.Host
	mode string // "": as the record says, or the bridge
}

func open(host stage.Host, c *cli.Context) (stage.Handler, error) {
	mode := c.String("network")
	switch mode {
	case "", modeBridge, modeNone, modeHost:
	default:
		return nil, applet.Usagef("--network %q: want bridge, none or host", mode)
	}
	return &handler{host, mode}, nil
}

// Up makes and connects the namespaces.
func (h *handler) Up(_ context.Context, r *record.Record) (retErr error) {
	var linux specs.Linux
	if _, err := r.Get(&linux, "linux"); err != nil {
		return err
	}
	mode := cmp.Or(h.mode, r.Annotation(record.AnnotationNetwork), modeBridge)
	if mode != modeBridge { // so that a later start does the same
		if err := r.Set(mode, "annotations", record.AnnotationNetwork); err != nil {
			return err
		}
	}
	u := &up{host: h.host, mode: mode, record: r, log: undo.Open(h.host.RunDir(r.ID()))}
	defer func() {
		if retErr != nil {
			retErr = errors.Join(retErr, u.undo())
		}
	}()
	var subnet network
	if mode == modeBridge {
		n, held, err := hold(h.host)
		if err != nil {
			return err
		}
		defer held.Close() // by then the lease keeps it
		subnet = n
	}
	var kinds []uint64
	if len(linux.UIDMappings) > 0 {
		kinds = append(kinds, unix.CLONE_NEWUSER)
	}
	if mode != modeHost {
		kinds = append(kinds, unix.CLONE_NEWNET)
	}
	if len(kinds) > 0 {
		files, err := spawn.Namespaces(linux.UIDMappings, linux.GIDMappings, kinds...)
		if err != nil {
			return err
		}
		for _, f := range files {
			defer f.Close()
		}
		for i, kind := range kinds {
			name, specName := "net", specs.NetworkNamespace
			if kind == unix.CLONE_NEWUSER {
				name, specName = "user", specs.UserNamespace
			}
			path, err := u.pin(name, files[i])
			if err != nil {
				return err
			}
			linux.Namespaces = withPath(linux.Namespaces, specName, path)
		}
		if mode != modeHost {
			if err := u.connect(files[len(files)-1], subnet); err != nil {
				return err
			}
		}
	}
	if mode == modeHost {
		linux.Namespaces = without(linux.Namespaces, specs.NetworkNamespace)
	}
	return r.Set(linux.Namespaces, "linux", "namespaces")
}

// withPath gives the namespace of that kind its path, adding it if the record
// does not have it.
func withPath(all []specs.LinuxNamespace, kind specs.LinuxNamespaceType, path string) []specs.LinuxNamespace {
	for i := range all {
		if all[i].Type == kind {
			all[i].Path = path
			return all
		}
	}
	return append(all, specs.LinuxNamespace{Type: kind, Path: path})
}

func without(all []specs.LinuxNamespace, kind specs.LinuxNamespaceType) []specs.LinuxNamespace {
	kept := []specs.LinuxNamespace{}
	for _, n := range all {
		if n.Type != kind {
			kept = append(kept, n)
		}
	}
	return kept
}

// Down lets the namespaces go. With them goes the veth pair.
func (h *handler) Down(_ context.Context, r *record.Record) error {
	return undo.Open(h.host.RunDir(r.ID())).Replay(Name)
}

// Check says what is missing of the pins, the lease and the host's part.
func (h *handler) Check(_ context.Context, r *record.Record) error {
	var namespaces []specs.LinuxNamespace
	if _, err := r.Get(&namespaces, "linux", "namespaces"); err != nil {
		return err
	}
	var errs []error
	pins := filepath.Join(h.host.RunDir(r.ID()), "ns")
	for _, n := range namespaces {
		if filepath.Dir(n.Path) != pins {
			continue
		}
		if mounted, err := sys.IsMountPoint(n.Path); err != nil || !mounted {
			errs = append(errs, errors.Join(err, fmt.Errorf("%s namespace %s %w", n.Type, n.Path, ErrMissing)))
		}
	}
	if address := r.Annotation(record.AnnotationAddress); address != "" {
		errs = append(errs, check(h.host, r.ID(), address))
	}
	return errors.Join(errs...)
}
