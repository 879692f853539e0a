package registry

import (
	"fmt"
	"runtime"
	"slices"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/cpu"
)

// variants are the CPU variants of the architecture that this machine runs,
// the one to take first. What a variant means is in the image spec's table
// for ARM, and in the x86-64 psABI for amd64; one without a variant is for all.
func variants() []string {
	switch runtime.GOARCH {
	case "amd64":
		all := []string{"", "v1"}
		v2 := cpu.X86.HasSSE3 && cpu.X86.HasSSSE3 && cpu.X86.HasSSE41 && cpu.X86.HasSSE42 && cpu.X86.HasPOPCNT
		v3 := v2 && cpu.X86.HasAVX2 && cpu.X86.HasFMA && cpu.X86.HasBMI1 && cpu.X86.HasBMI2
		v4 := v3 && cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512CD && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL
		for i, has := range []bool{v4, v3, v2} {
			if has {
				all = append(all, fmt.Sprintf("v%d", 4-i))
			}
		}
		return all
	case "arm64":
		return []string{"", "v8"}
	case "arm":
		if cpu.ARM.HasVFPv3 {
			return []string{"v7", "v6", "v5", ""}
		}
		return []string{"v6", "v5", ""}
	}
	return []string{""}
}

// choose picks this machine's image out of an index: of the best variant, and
// of several such the first.
func choose(all []ispec.Descriptor) (*ispec.Descriptor, error) {
	var have []string
	var unnamed []*ispec.Descriptor
	best, rank := (*ispec.Descriptor)(nil), -1
	ours := variants()
	for i := range all {
		d := &all[i]
		if d.MediaType != "" && !slices.Contains(manifests, d.MediaType) && !slices.Contains(indexes, d.MediaType) {
			continue
		}
		p := d.Platform
		if p == nil {
			unnamed = append(unnamed, d)
			continue
		}
		if p.OS == "linux" && p.Architecture == runtime.GOARCH {
			r := slices.Index(ours, p.Variant)
			if r >= 0 && (rank < 0 || r < rank) {
				best, rank = d, r
			}
		}
		if p.OS != "unknown" { // attestations
			have = append(have, platform(*p))
		}
	}
	if best == nil && len(unnamed) == 1 {
		best = unnamed[0] // its config tells
	}
	if best == nil {
		return nil, fmt.Errorf("%w linux/%s: there are %q", ErrPlatform, runtime.GOARCH, have[:min(len(have), 20)])
	}
	if err := best.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("%w: index: %w", ErrManifest, err)
	}
	return best, nil
}

// platform is a platform as people write it.
func platform(p ispec.Platform) string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}
