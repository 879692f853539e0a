// Package unpack is shocker-unpack: from blobs to layers, and to an image if
// all that its manifest names has come.
package unpack

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"shocker.sh/lib/applet"
	"shocker.sh/lib/btrfs"
	"shocker.sh/lib/stage"
	"shocker.sh/lib/store"
	"shocker.sh/lib/sys"
	"shocker.sh/shocker-pull/internal/untar"
)

// Name of the program.
const Name = "shocker-unpack"

var (
	// ErrIncomplete is an input that ended before all had come that the
	// manifest names.
	ErrIncomplete = errors.New("not all that the manifest names has come")
	// ErrDescriptor is an input that is not descriptors of one image.
	ErrDescriptor = errors.New("not a descriptor of the image")
	// ErrBlob is a blob that is missing or is not what its digest says.
	ErrBlob = errors.New("the blob does not have its digest")
)

// Applet is shocker-unpack as a program.
var Applet = applet.Command(&cli.Command{
	Name:      Name,
	Usage:     "make an image of the blobs whose descriptors come on stdin",
	ArgsUsage: " ",
	Description: "Reads OCI descriptors, one a line: manifest and config, then the layers in their\n" +
		"order. Each layer is unpacked as it comes into a subvolume of its own; the image is\n" +
		"made at the end, if all came. The blobs are those of the store's OCI layout.",
	Action: func(c *cli.Context) error {
		if c.NArg() > 0 {
			return applet.Usagef("descriptors are read from the input, no argument %q", c.Args().First())
		}
		if err := applet.NeedRoot(); err != nil {
			return err
		}
		streams := applet.Streams(c)
		st, err := store.Open(stage.FromEnv().Store, applet.Talk(streams, Name))
		if err != nil {
			return err
		}
		release, err := st.Use()
		if err != nil {
			return err
		}
		defer release()
		img, err := Make(c.Context, st, Lines(c.Context, streams.In))
		if err != nil {
			return err
		}
		return Tell(streams.Out, img)
	},
})

// Tell says which image it is, and whether it has just been made.
func Tell(out io.Writer, img *Image) error {
	verb := "Created"
	if img.Existed {
		verb = "Exists"
	}
	_, err := fmt.Fprintf(out, "%s: %s\n", verb, img.ID)
	return err
}

// Image is the image that Make made, or that was there already with the same
// source and manifest.
type Image struct {
	*store.Image
	Existed bool
}

// Present looks for an image with that source and manifest; the digest may be
// a tag, which no image has. A source that names the digest itself is that of
// every image which has it. One whose tree was deleted by hand does not count:
// a pull makes it again.
func Present(st *store.Store, source, digest string) (*Image, error) {
	images, err := st.Images()
	if err != nil && !errors.Is(err, store.ErrDamaged) {
		return nil, err
	}
	for _, i := range images {
		if i.Digest != digest || i.Source != source && !strings.HasSuffix(source, "@"+digest) {
			continue
		}
		if _, err := btrfs.UUID(st.Layer(i.Top())); err == nil {
			return &Image{i, true}, nil
		}
	}
	return nil, nil
}

// Blob is a blob in the store, or one on its way there.
type Blob struct {
	ispec.Descriptor
	// Open reads a blob on its way. Its end says that the blob is in the
	// store and has its digest. Nil: it is there.
	Open func(context.Context) (io.ReadCloser, error)
}

// Next returns one blob after another, and io.EOF at the end.
type Next func() (*Blob, error)

// Lines reads descriptors from a stream, one a line.
func Lines(ctx context.Context, r io.Reader) Next {
	type line struct {
		blob *Blob
		err  error
	}
	lines := make(chan line)
	// A read of a pipe or terminal cannot be interrupted, only left alone.
	go func() {
		next := descriptors(r)
		for {
			b, err := next()
			select {
			case lines <- line{b, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return func() (*Blob, error) {
		select {
		case l := <-lines:
			return l.blob, l.err
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func descriptors(r io.Reader) Next {
	scan := bufio.NewScanner(r)
	scan.Buffer(nil, 8<<20)
	return func() (*Blob, error) {
		for scan.Scan() {
			if len(bytes.TrimSpace(scan.Bytes())) == 0 {
				continue
			}
			b := &Blob{}
			err := json.Unmarshal(scan.Bytes(), &b.Descriptor)
			if err == nil {
				err = b.Digest.Validate()
			}
			if err != nil {
				return nil, fmt.Errorf("%w: %w", ErrDescriptor, err)
			}
			return b, nil
		}
		if err := scan.Err(); err != nil {
			return nil, err
		}
		return nil, io.EOF
	}
}

// Make makes an image. Layers that came whole stay, whatever comes after.
func Make(ctx context.Context, st *store.Store, next Next) (*Image, error) {
	must := func() (*Blob, error) {
		b, err := next()
		if errors.Is(err, io.EOF) {
			err = ErrIncomplete
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return b, err
	}
	top, err := must()
	if err != nil {
		return nil, err
	}
	var manifest ispec.Manifest
	if err := document(st, top.Digest, &manifest); err != nil {
		return nil, err
	}
	configDesc, err := must()
	if err != nil {
		return nil, err
	}
	if configDesc.Digest != manifest.Config.Digest {
		return nil, fmt.Errorf("%w: %s, where the config %s has to come", ErrDescriptor, configDesc.Digest, manifest.Config.Digest)
	}
	img := &store.Image{Source: top.Annotations[ispec.AnnotationRefName], Digest: top.Digest.String()}
	if err := document(st, configDesc.Digest, &img.Config); err != nil {
		return nil, err
	}
	diffIDs, err := check(&manifest, img)
	if err != nil {
		return nil, err
	}
	for i, want := range manifest.Layers {
		b, err := must()
		if err != nil {
			return nil, err
		}
		if b.Digest != want.Digest {
			return nil, fmt.Errorf("%w: %s, where layer %s has to come", ErrDescriptor, b.Digest, want.Digest)
		}
		chain := identity.ChainID(diffIDs[:i+1])
		name := chain.Algorithm().String() + "-" + chain.Encoded()
		below := ""
		if i > 0 {
			below = img.Layers[i-1]
		}
		if err := layer(ctx, st, b, diffIDs[i], below, name); err != nil {
			return nil, fmt.Errorf("layer %s: %w", want.Digest, err)
		}
		img.Layers = append(img.Layers, name)
	}
	if _, err := next(); !errors.Is(err, io.EOF) {
		return nil, errors.Join(err, fmt.Errorf("%w: more came than the manifest names", ErrDescriptor))
	}
	if there, err := Present(st, img.Source, img.Digest); there != nil || err != nil {
		return there, err
	}
	return &Image{Image: img}, finish(st, img, &top.Descriptor)
}

// check refuses what cannot be an image that we run, and returns the diff IDs
// of its layers.
func check(m *ispec.Manifest, img *store.Image) ([]digest.Digest, error) {
	n := len(img.Config.RootFS.DiffIDs)
	if n == 0 || n != len(m.Layers) {
		return nil, fmt.Errorf("%w: the config names %d layers, the manifest %d", ErrDescriptor, n, len(m.Layers))
	}
	diffIDs := make([]digest.Digest, 0, n)
	for _, id := range img.Config.RootFS.DiffIDs {
		d, err := digest.Parse(id)
		if err != nil {
			return nil, fmt.Errorf("%w: diff ID: %w", ErrDescriptor, err)
		}
		diffIDs = append(diffIDs, d)
	}
	p := img.Config.Platform
	if p.OS != "" && p.OS != "linux" || p.Architecture != "" && p.Architecture != runtime.GOARCH {
		return nil, fmt.Errorf("the image is for %s/%s, and this machine is linux/%s", p.OS, p.Architecture, runtime.GOARCH)
	}
	return diffIDs, nil
}

// finish makes the image exist and the layout name it.
func finish(st *store.Store, img *store.Image, top *ispec.Descriptor) error {
	img.Created = time.Now().UTC()
	if err := st.PutImage(img); err != nil {
		return err
	}
	return st.UpdateIndex(func(index *store.Index) {
		kept := index.Manifests[:0]
		for _, d := range index.Manifests {
			if d.Annotations[ispec.AnnotationRefName] != img.Source {
				kept = append(kept, d)
			}
		}
		index.Manifests = append(kept, store.Descriptor{
			MediaType: top.MediaType, Digest: top.Digest.String(), Size: top.Size, URLs: top.URLs, Data: top.Data,
			Annotations: top.Annotations, Platform: (*store.Platform)(top.Platform), ArtifactType: top.ArtifactType,
		})
	})
}

// maxDocument is how many bytes a manifest or config may have; a layer that is
// called one has more.
const maxDocument = 8 << 20

// document reads a small JSON blob and checks its digest.
func document(st *store.Store, d digest.Digest, v any) error {
	f, err := os.Open(st.Blob(d.String()))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w: it is not in the store", d, ErrBlob)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxDocument+1))
	if err != nil {
		return err
	}
	if len(data) > maxDocument {
		return fmt.Errorf("%s: %w: a manifest or config has up to %d bytes", d, ErrDescriptor, maxDocument)
	}
	if d.Algorithm().FromBytes(data) != d {
		return fmt.Errorf("%s: %w: remove it, and pull again", d, ErrBlob)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s: %w", d, err)
	}
	return nil
}

// layer makes the layer of that name, unless it is there: what lies below it,
// and on top of that the blob.
func layer(ctx context.Context, st *store.Store, b *Blob, diffID digest.Digest, below, name string) (retErr error) {
	if _, err := btrfs.UUID(st.Layer(name)); err == nil {
		return nil
	}
	temp, done, err := st.Temp("layer")
	if err != nil {
		return err
	}
	defer func() { retErr = errors.Join(retErr, done()) }()
	path := filepath.Join(temp, "layer")
	if below == "" {
		if err = btrfs.Create(path); err == nil {
			err = os.Chmod(path, 0o755)
		}
	} else {
		err = btrfs.Snapshot(st.Layer(below), path, false)
	}
	if err != nil {
		return err
	}
	root, err := sys.OpenDir(path)
	if err != nil {
		return err
	}
	defer func() { retErr = errors.Join(retErr, root.Close()) }()
	if b.Open != nil {
		err = fromDownload(ctx, b, diffID, root)
	} else {
		err = fromStore(ctx, st.Blob(b.Digest.String()), b.Digest, diffID, root)
	}
	if err != nil {
		return err
	}
	if err := st.PutLayer(path, name); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// fromDownload unpacks a blob whose digest its reader checks.
func fromDownload(ctx context.Context, b *Blob, diffID digest.Digest, root *os.File) error {
	reading, abort := context.WithCancel(ctx)
	defer abort()
	r, err := b.Open(reading)
	if err != nil {
		return err
	}
	return errors.Join(apply(ctx, r, abort, diffID, root), r.Close())
}

// fromStore unpacks a blob of the store. One that has not its digest is
// removed, so that the next pull fetches it again.
func fromStore(ctx context.Context, path string, want, diffID digest.Digest, root *os.File) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBlob, err)
	}
	defer f.Close()
	r := &hashed{r: f, h: want.Algorithm().Hash()}
	err = apply(ctx, r, func() {}, diffID, root)
	if err != nil && ctx.Err() != nil {
		return err
	}
	// Content that went bad is the cause of whatever else went wrong.
	if _, readErr := io.Copy(io.Discard, r); readErr != nil {
		return errors.Join(err, readErr)
	}
	if got := digest.NewDigest(want.Algorithm(), r.h); got != want {
		return errors.Join(fmt.Errorf("%w, but %s; it is removed: pull again", ErrBlob, got), os.Remove(path))
	}
	return err
}

// limits are those of a layer; SHOCKER_LAYER_LIMIT is its size in bytes.
func limits() untar.Limits {
	l := untar.Default
	if n, err := strconv.ParseInt(os.Getenv("SHOCKER_LAYER_LIMIT"), 10, 64); err == nil && n > 0 {
		l.Bytes = n
	}
	return l
}
