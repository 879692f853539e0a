package registry

import (
	"errors"
	"runtime"
	"testing"

	digest "github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestChoose(t *testing.T) {
	here := runtime.GOARCH
	ours := variants()
	last := ours[len(ours)-1]
	for _, test := range []struct {
		platforms []string // OS, architecture, variant; "" for none
		want      int      // -1: ErrPlatform
	}{
		{[]string{"linux/" + here + "/"}, 0},
		{[]string{"linux/mips64/", "linux/" + here + "/", "windows/" + here + "/"}, 1},
		{[]string{"linux/" + here + "/", "linux/" + here + "/"}, 0},
		{[]string{"linux/" + here + "/" + last, "linux/" + here + "/" + ours[0]}, min(len(ours)-1, 1)},
		{[]string{"linux/" + here + "/" + last}, 0},
		{[]string{"linux/" + here + "/v99"}, -1},
		{[]string{"unknown/unknown/", "linux/mips64/"}, -1},
		{[]string{""}, 0},
		{[]string{"linux/mips64/", ""}, 1},
		{[]string{"", ""}, -1},
		{nil, -1},
	} {
		var all []ispec.Descriptor
		for _, p := range test.platforms {
			d := ispec.Descriptor{Digest: digest.FromString(p)}
			if p != "" {
				d.Platform = split(p)
			}
			all = append(all, d)
		}
		got, err := choose(all)
		switch {
		case test.want < 0:
			if !errors.Is(err, ErrPlatform) {
				t.Errorf("choose(%q) = %v, %v; want ErrPlatform", test.platforms, got, err)
			}
		case err != nil || got != &all[test.want]:
			t.Errorf("choose(%q) = %v, %v; want the one at %d", test.platforms, got, err, test.want)
		}
	}
	bad := []ispec.Descriptor{{Digest: "sha256:../x", Platform: split("linux/" + here + "/")}}
	if _, err := choose(bad); !errors.Is(err, ErrManifest) {
		t.Errorf("a bad digest in an index: %v; want ErrManifest", err)
	}
}

func split(s string) *ispec.Platform {
	p := &ispec.Platform{}
	fields := []*string{&p.OS, &p.Architecture, &p.Variant}
	n := 0
	for _, c := range s {
		if c == '/' {
			n++
			continue
		}
		*fields[n] += string(c)
	}
	return p
}
