// Package pull is shocker-pull: from a registry into the store.
package pull

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/applet"
	"shocker.sh/lib/stage"
	"shocker.sh/lib/store"
	"shocker.sh/shocker-pull/internal/fetch"
	"shocker.sh/shocker-pull/internal/registry"
	"shocker.sh/shocker-pull/unpack"
)

// Name of the program.
const Name = "shocker-pull"

// Applet is shocker-pull as a program.
var Applet = applet.Command(&cli.Command{
	Name:      Name,
	Usage:     "fetch an image from a registry",
	ArgsUsage: "NAME[:TAG|@DIGEST] | NAME TAG",
	Description: "Fetches what the store does not have and makes an image of it: the same as\n" +
		"shocker-pull --fetch NAME | shocker-unpack. With --fetch it writes the descriptors of\n" +
		"the blobs to stdout, manifest and config first, each once the blob is whole.\n" +
		"Credentials are those of docker login and podman login. SHOCKER_REGISTRY stands in\n" +
		"the place of docker.io, SHOCKER_TIMEOUT is how many seconds nothing may come (60).",
	Flags: []cli.Flag{
		&cli.BoolFlag{Name: "fetch", Usage: "only fetch, and write the descriptors"},
	},
	Action: run,
})

func run(c *cli.Context) error {
	args := c.Args().Slice()
	source := ""
	switch {
	case len(args) == 1:
		source = args[0]
	case len(args) == 2 && !strings.ContainsAny(args[1], ":/@"):
		source = args[0] + ":" + args[1]
	default:
		return applet.Usagef("want one image, as NAME:TAG or NAME TAG (see %s --help)", c.App.HelpName)
	}
	if err := applet.NeedRoot(); err != nil {
		return err
	}
	ref, err := registry.Parse(source)
	if err != nil {
		return err
	}
	streams := applet.Streams(c)
	host := stage.FromEnv()
	st, err := store.Open(host.Store, applet.Talk(streams, c.App.Name))
	if err != nil {
		return err
	}
	release, err := st.Use()
	if err != nil {
		return err
	}
	defer release()
	if c.Bool("fetch") {
		defer stage.CatchPipe()()
		enc := json.NewEncoder(streams.Out)
		return get(c.Context, st, ref, source, true, streams.Err, func(d ispec.Descriptor) error { return enc.Encode(d) })
	}
	// A digest says all: the registry need not be asked.
	if img, err := unpack.Present(st, source, ref.Identifier()); err != nil {
		return err
	} else if img != nil {
		return unpack.Tell(streams.Out, img)
	}
	from := fetcher(func(ctx context.Context, emit func(ispec.Descriptor) error) error {
		return get(ctx, st, ref, source, false, streams.Err, emit)
	})
	program, err := host.Resolve(Name)
	if err != nil {
		return err
	}
	if program != "" {
		from = foreign(program, source, streams)
	}
	return compose(c.Context, host, st, from, streams)
}

// fetcher calls emit with each descriptor once its blob is whole.
type fetcher func(ctx context.Context, emit func(ispec.Descriptor) error) error

// foreign is another's shocker-pull.
func foreign(program, source string, streams applet.IO) fetcher {
	return func(ctx context.Context, emit func(ispec.Descriptor) error) error {
		cmd := exec.CommandContext(ctx, program, "--fetch", source)
		cmd.Args[0] = Name
		cmd.Stderr = streams.Err
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			return err
		}
		next := unpack.Lines(out)
		d, err := next()
		for err == nil {
			if err = emit(*d); err == nil {
				d, err = next()
			}
		}
		if errors.Is(err, io.EOF) {
			err = nil
		} else if killErr := cmd.Process.Kill(); killErr != nil && !errors.Is(killErr, os.ErrProcessDone) {
			err = errors.Join(err, killErr)
		}
		if waitErr := cmd.Wait(); err == nil && waitErr != nil {
			err = fmt.Errorf("%s: %w", program, waitErr)
		}
		return err
	}
}

// errExists ends a pull whose image turns out to be there.
type errExists struct{ img *unpack.Image }

func (e *errExists) Error() string { return "image " + e.img.ID + " exists" }

// compose fetches and unpacks at the same time.
func compose(ctx context.Context, host stage.Host, st *store.Store, from fetcher, streams applet.IO) error {
	program, err := host.Resolve(unpack.Name)
	if err != nil {
		return err
	}
	if program != "" {
		return feed(ctx, program, from, streams)
	}
	// Either side's error ends the other one too.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	descriptors := make(chan ispec.Descriptor, 64)
	fetched := make(chan error, 1)
	go func() {
		defer close(descriptors)
		err := from(ctx, func(d ispec.Descriptor) error {
			select {
			case descriptors <- d:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
		if err != nil {
			cancel(err)
		}
		fetched <- err
	}()
	img, unpackErr := unpack.Make(ctx, st, func() (*ispec.Descriptor, error) {
		d, ok := <-descriptors
		if !ok {
			return nil, io.EOF
		}
		return &d, nil
	})
	if unpackErr != nil {
		cancel(unpackErr)
	}
	err = <-fetched
	var there *errExists
	switch {
	case errors.As(err, &there):
		return unpack.Tell(streams.Out, there.img)
	case err != nil && !errors.Is(err, unpackErr):
		return err
	case unpackErr != nil:
		return unpackErr
	}
	return unpack.Tell(streams.Out, img)
}

// feed fetches for another's shocker-unpack.
func feed(ctx context.Context, program string, from fetcher, streams applet.IO) error {
	defer stage.CatchPipe()()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program)
	cmd.Args[0] = unpack.Name
	cmd.Stdin, cmd.Stdout, cmd.Stderr = r, streams.Out, streams.Err
	if err := errors.Join(cmd.Start(), r.Close()); err != nil {
		return errors.Join(err, w.Close())
	}
	enc := json.NewEncoder(w)
	err = from(ctx, func(d ispec.Descriptor) error { return enc.Encode(d) })
	w.Close() // the end of its input; a write error was seen by Encode
	waitErr := cmd.Wait()
	var there *errExists
	switch {
	case errors.As(err, &there):
		return unpack.Tell(streams.Out, there.img)
	case waitErr != nil && (err == nil || errors.Is(err, unix.EPIPE)):
		return fmt.Errorf("%s: %w", program, waitErr)
	}
	return err
}

// get fetches what is missing and calls emit with each descriptor once its
// blob is whole, in the order of the manifest. Unless all are wanted, it ends
// with errExists if there is an image of them.
func get(ctx context.Context, st *store.Store, ref reference, source string, all bool, talk *os.File, emit func(ispec.Descriptor) error) error {
	client, err := registry.Open(ctx, ref)
	if err != nil {
		return err
	}
	img, err := client.Image(ctx)
	if err != nil {
		return err
	}
	if !all {
		there, err := unpack.Present(st, source, img.Descriptor.Digest.String())
		if err != nil {
			return err
		}
		if there != nil {
			return &errExists{there}
		}
	}
	config := img.Manifest.Config
	if err := fetch.Put(st, config.Digest, img.ConfigData); err != nil {
		return err
	}
	if err := fetch.Put(st, img.Descriptor.Digest, img.Data); err != nil {
		return err
	}
	manifest := img.Descriptor
	manifest.Annotations = map[string]string{ispec.AnnotationRefName: source}
	for _, d := range []ispec.Descriptor{manifest, config} {
		if err := emit(d); err != nil {
			return err
		}
	}
	return layers(ctx, st, client, img.Manifest.Layers, talk, emit)
}
