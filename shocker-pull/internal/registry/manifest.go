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
)

const (
	maxManifest = 4 << 20 // bytes; the distribution spec's own limit
	maxNesting  = 4       // indexes in indexes
	maxLayers   = 512
)

var (
	manifests = []string{ispec.MediaTypeImageManifest, dockerManifest}
	indexes   = []string{ispec.MediaTypeImageIndex, dockerIndex}
)

// Image is what a manifest and the config that it names say.
type Image struct {
	Descriptor ispec.Descriptor // of the manifest
	Data       []byte           // of the manifest
	Manifest   ispec.Manifest
	ConfigData []byte
}

// Image fetches the manifest of this machine's image that the reference
// leads to, and its config.
func (c *Client) Image(ctx context.Context) (*Image, error) {
	id, want := c.ref.Identifier(), digest.Digest("")
	if d := digest.Digest(id); d.Validate() == nil {
		want = d
	}
	for range maxNesting {
		data, mediaType, err := c.fetch(ctx, "manifests", id, slices.Concat(manifests, indexes), want)
		if err != nil {
			return nil, err
		}
		if len(data) > maxManifest {
			return nil, fmt.Errorf("manifest %s of %s: %w", id, c.Repository(), ErrTooLong)
		}
		// What the document says of itself counts more than a header.
		var head struct {
			MediaType string             `json:"mediaType"`
			Version   int                `json:"schemaVersion"`
			Manifests []ispec.Descriptor `json:"manifests"`
		}
		if err := json.Unmarshal(data, &head); err != nil {
			return nil, fmt.Errorf("manifest %s of %s: %w: %w", id, c.Repository(), ErrManifest, err)
		}
		if head.MediaType != "" {
			mediaType = head.MediaType
		}
		switch {
		case slices.Contains(indexes, mediaType):
			chosen, err := choose(head.Manifests)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.ref, err)
			}
			id, want = chosen.Digest.String(), chosen.Digest
		case slices.Contains(manifests, mediaType):
			if want == "" {
				want = digest.FromBytes(data)
			}
			return c.image(ctx, data, ispec.Descriptor{MediaType: mediaType, Digest: want, Size: int64(len(data))})
		default:
			return nil, fmt.Errorf("manifest %s of %s: %w, but %q of schema %d", id, c.Repository(), ErrManifest, mediaType, head.Version)
		}
	}
	return nil, fmt.Errorf("%s: %w: indexes nested more than %d deep", c.ref, ErrManifest, maxNesting)
}

// choose picks this machine's image out of an index. Of several, the first.
func choose(all []ispec.Descriptor) (*ispec.Descriptor, error) {
	var have []string
	for i, d := range all {
		if err := d.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("%w: index: %w", ErrManifest, err)
		}
		p := d.Platform
		if p == nil {
			continue
		}
		if p.OS == "linux" && p.Architecture == runtime.GOARCH {
			return &all[i], nil
		}
		if p.OS != "unknown" { // attestations
			have = append(have, p.OS+"/"+p.Architecture+p.Variant)
		}
	}
	if len(all) == 1 && all[0].Platform == nil {
		return &all[0], nil // its config tells
	}
	return nil, fmt.Errorf("%w linux/%s: there are %q", ErrPlatform, runtime.GOARCH, have)
}

// image checks a manifest and fetches its config.
func (c *Client) image(ctx context.Context, data []byte, d ispec.Descriptor) (*Image, error) {
	img := &Image{Descriptor: d, Data: data}
	if err := json.Unmarshal(data, &img.Manifest); err != nil {
		return nil, fmt.Errorf("manifest %s of %s: %w: %w", d.Digest, c.Repository(), ErrManifest, err)
	}
	m := &img.Manifest
	if len(m.Layers) == 0 || len(m.Layers) > maxLayers {
		return nil, fmt.Errorf("manifest %s of %s: %w: it has %d layers", d.Digest, c.Repository(), ErrManifest, len(m.Layers))
	}
	for _, b := range append([]ispec.Descriptor{m.Config}, m.Layers...) {
		if err := b.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("manifest %s of %s: %w: %w", d.Digest, c.Repository(), ErrManifest, err)
		}
		if b.Size < 0 || b.Digest == m.Config.Digest && b.Size > maxManifest {
			return nil, fmt.Errorf("manifest %s of %s: %w: blob %s of %d bytes", d.Digest, c.Repository(), ErrManifest, b.Digest, b.Size)
		}
	}
	var err error
	if img.ConfigData, _, err = c.fetch(ctx, "blobs", m.Config.Digest.String(), nil, m.Config.Digest); err != nil {
		return nil, err
	}
	var config ispec.Image
	if err := json.Unmarshal(img.ConfigData, &config); err != nil {
		return nil, fmt.Errorf("config %s of %s: %w: %w", m.Config.Digest, c.Repository(), ErrManifest, err)
	}
	if config.OS != "" && config.OS != "linux" || config.Architecture != "" && config.Architecture != runtime.GOARCH {
		return nil, fmt.Errorf("%s: %w linux/%s: it is for %s/%s", c.ref, ErrPlatform, runtime.GOARCH, config.OS, config.Architecture)
	}
	if n := len(config.RootFS.DiffIDs); n != len(m.Layers) {
		return nil, fmt.Errorf("config %s of %s: %w: %d layers in the manifest, %d here", m.Config.Digest, c.Repository(), ErrManifest, len(m.Layers), n)
	}
	return img, nil
}
