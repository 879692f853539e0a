package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"

	digest "github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of Docker's registry, which the OCI ones were made from.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
)

const (
	maxManifest = 4 << 20 // bytes; the distribution spec's own limit
	maxNesting  = 4       // indexes in indexes
	maxLayers   = 512     // Docker makes no more than 127
)

var (
	manifests = []string{ispec.MediaTypeImageManifest, dockerManifest}
	indexes   = []string{ispec.MediaTypeImageIndex, dockerIndex}
	configs   = []string{ispec.MediaTypeImageConfig, dockerConfig}
)

// Image is what a manifest says.
type Image struct {
	Descriptor ispec.Descriptor // of the manifest
	Data       []byte           // of the manifest
	Manifest   ispec.Manifest
}

// Image fetches the manifest of this machine's image that the reference
// leads to.
func (c *Client) Image(ctx context.Context) (*Image, error) {
	id, want, size := c.ref.Identifier(), digest.Digest(""), int64(-1)
	if d := digest.Digest(id); d.Validate() == nil {
		want = d
	}
	for range maxNesting {
		data, mediaType, err := c.fetch(ctx, "manifests", id, slices.Concat(manifests, indexes), want, size)
		if err != nil {
			return nil, err
		}
		img, next, err := c.read(data, mediaType, want)
		if err != nil {
			return nil, fmt.Errorf("manifest %s of %s: %w", id, c.Repository(), err)
		}
		if img != nil {
			return img, nil
		}
		id, want, size = next.Digest.String(), next.Digest, next.Size
	}
	return nil, fmt.Errorf("manifest of %s: %w: indexes nested more than %d deep", c.ref, ErrManifest, maxNesting)
}

// read reads a manifest, or an index and says which of its manifests is next.
func (c *Client) read(data []byte, mediaType string, d digest.Digest) (*Image, *ispec.Descriptor, error) {
	if len(data) > maxManifest {
		return nil, nil, ErrTooLong
	}
	var head struct {
		MediaType string             `json:"mediaType"`
		Version   int                `json:"schemaVersion"`
		Manifests []ispec.Descriptor `json:"manifests"`
		Layers    json.RawMessage    `json:"layers"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	// What the document says of itself is under its digest, a header is not.
	if head.MediaType != "" {
		mediaType = head.MediaType
	}
	switch {
	case head.Version == 1:
		return nil, nil, fmt.Errorf("%w: it is of schema 1, which Docker gave up in 2019: push the image again", ErrManifest)
	case head.Manifests != nil && head.Layers != nil:
		// CVE-2021-41190: two readers would see two images under one digest.
		return nil, nil, fmt.Errorf("%w: it is one and an index at the same time", ErrManifest)
	case slices.Contains(indexes, mediaType):
		next, err := choose(head.Manifests)
		return nil, next, err
	case slices.Contains(manifests, mediaType):
		if d == "" {
			d = digest.FromBytes(data)
		}
		img := &Image{Descriptor: ispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}, Data: data}
		if err := json.Unmarshal(data, &img.Manifest); err != nil {
			return nil, nil, fmt.Errorf("%w: %w", ErrManifest, err)
		}
		return img, nil, check(&img.Manifest)
	}
	return nil, nil, fmt.Errorf("%w, but %q", ErrManifest, mediaType)
}

// check refuses manifests that cannot be those of an image.
func check(m *ispec.Manifest) error {
	if len(m.Layers) == 0 || len(m.Layers) > maxLayers {
		return fmt.Errorf("%w: it has %d layers", ErrManifest, len(m.Layers))
	}
	if !slices.Contains(configs, m.Config.MediaType) {
		return fmt.Errorf("%w, but of %q", ErrManifest, m.Config.MediaType)
	}
	if m.Config.Size > maxManifest {
		return fmt.Errorf("%w: its config has %d bytes", ErrManifest, m.Config.Size)
	}
	sizes := make(map[digest.Digest]int64)
	for _, b := range append([]ispec.Descriptor{m.Config}, m.Layers...) {
		if err := b.Digest.Validate(); err != nil {
			return fmt.Errorf("%w: %w", ErrManifest, err)
		}
		if size, ok := sizes[b.Digest]; b.Size < 0 || ok && size != b.Size {
			return fmt.Errorf("%w: blob %s of %d bytes", ErrManifest, b.Digest, b.Size)
		}
		sizes[b.Digest] = b.Size
	}
	return nil
}

// Config fetches the config that a manifest names.
func (c *Client) Config(ctx context.Context, d ispec.Descriptor) ([]byte, error) {
	data, _, err := c.fetch(ctx, "blobs", d.Digest.String(), nil, d.Digest, d.Size)
	return data, err
}

// CheckConfig refuses a config of an image that this machine cannot run, or
// that does not go with its manifest.
func (c *Client) CheckConfig(data []byte, m *ispec.Manifest) error {
	fail := func(err error) error {
		return fmt.Errorf("config %s of %s: %w", m.Config.Digest, c.Repository(), err)
	}
	var config ispec.Image
	if err := json.Unmarshal(data, &config); err != nil {
		return fail(fmt.Errorf("%w: %w", ErrManifest, err))
	}
	p := config.Platform
	if p.OS != "" && p.OS != "linux" || p.Architecture != "" && p.Architecture != runtime.GOARCH {
		return fail(fmt.Errorf("%w linux/%s: it is for %s", ErrPlatform, runtime.GOARCH, platform(p)))
	}
	if n := len(config.RootFS.DiffIDs); n != len(m.Layers) {
		return fail(fmt.Errorf("%w: it names %d layers, and the manifest %d", ErrManifest, n, len(m.Layers)))
	}
	return nil
}
