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
	Description: "For example: shocker pull debian:12\n" +
		"Fetches what the store does not have and makes an image of it: the same as\n" +
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
		g := &getter{st: st, ref: ref, source: source, all: true, talk: streams.Err}
		return g.get(c.Context, func(b unpack.Blob) error { return enc.Encode(b.Descriptor) })
	}
	// A digest says all: the registry need not be asked.
	if img, err := unpack.Present(st, source, ref.Identifier()); err != nil {
		return err
	} else if img != nil {
		return unpack.Tell(streams.Out, img)
	}
	theirPull, err := host.Resolve(Name)
	if err != nil {
		return err
	}
	theirUnpack, err := host.Resolve(unpack.Name)
	if err != nil {
		return err
	}
	g := &getter{st: st, ref: ref, source: source, early: theirUnpack == "", talk: streams.Err}
	from := g.get
	if theirPull != "" {
		from = foreign(theirPull, source, streams)
	}
	if theirUnpack != "" {
		return feed(c.Context, theirUnpack, from, streams)
	}
	return compose(c.Context, st, from, streams)
}

// fetcher calls emit with each blob, in the order of the manifest.
type fetcher func(ctx context.Context, emit func(unpack.Blob) error) error

// foreign is another's shocker-pull.
func foreign(program, source string, streams applet.IO) fetcher {
	return func(ctx context.Context, emit func(unpack.Blob) error) error {
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
		next := unpack.Lines(ctx, out)
		b, err := next()
		for err == nil {
			if err = emit(*b); err == nil {
				b, err = next()
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
func compose(ctx context.Context, st *store.Store, from fetcher, streams applet.IO) error {
	// Either side's error ends the other one too.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	blobs := make(chan unpack.Blob, 64)
	fetched := make(chan error, 1)
	go func() {
		defer close(blobs)
		err := from(ctx, func(b unpack.Blob) error {
			select {
			case blobs <- b:
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
	img, unpackErr := unpack.Make(ctx, st, func() (*unpack.Blob, error) {
		b, ok := <-blobs
		if !ok {
			return nil, io.EOF
		}
		return &b, nil
	})
	if unpackErr != nil {
		cancel(unpackErr)
	}
	err := <-fetched
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
	err = from(ctx, func(b unpack.Blob) error { return enc.Encode(b.Descriptor) })
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

// getter gets an image from a registry.
type getter struct {
	st     *store.Store
	ref    registry.Reference
	source string // the reference as it was written
	all    bool   // also if there is an image of it
	early  bool   // emit layers before they are whole
	talk   *os.File
}

// get fetches what is missing and calls emit with each blob in the order of
// the manifest. Unless all are wanted, it ends with errExists if there is an
// image of them.
func (g *getter) get(ctx context.Context, emit func(unpack.Blob) error) error {
	client, err := registry.Open(ctx, g.ref)
	if err != nil {
		return err
	}
	img, err := client.Image(ctx)
	if err != nil {
		return err
	}
	if !g.all {
		there, err := unpack.Present(g.st, g.source, img.Descriptor.Digest.String())
		if err != nil {
			return err
		}
		if there != nil {
			return &errExists{there}
		}
	}
	m := &img.Manifest
	config, err := fetch.Document(g.st, m.Config, func() ([]byte, error) { return client.Config(ctx, m.Config) })
	if err != nil {
		return err
	}
	if err := client.CheckConfig(config, m); err != nil {
		return err
	}
	_, err = fetch.Document(g.st, img.Descriptor, func() ([]byte, error) { return img.Data, nil })
	if err != nil {
		return err
	}
	manifest := img.Descriptor
	manifest.Annotations = map[string]string{ispec.AnnotationRefName: g.source}
	for _, d := range []ispec.Descriptor{manifest, m.Config} {
		if err := emit(unpack.Blob{Descriptor: d}); err != nil {
			return err
		}
	}
	return layers(ctx, g.st, client, m.Layers, g.early, g.talk, emit)
}
