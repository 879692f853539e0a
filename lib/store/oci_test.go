package store

import (
	"reflect"
	"strings"
	"testing"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// shape is what JSON sees of a type.
func shape(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return "*" + shape(t.Elem())
	case reflect.Slice:
		return "[]" + shape(t.Elem())
	case reflect.Map:
		return "map[" + shape(t.Key()) + "]" + shape(t.Elem())
	case reflect.Struct:
		if t.PkgPath() == "time" {
			return t.Name()
		}
		var fields []string
		for i := range t.NumField() {
			f := t.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.Anonymous {
				fields = append(fields, strings.Trim(shape(f.Type), "{}"))
			} else {
				fields = append(fields, name+" "+shape(f.Type))
			}
		}
		return "{" + strings.Join(fields, "; ") + "}"
	default:
		return t.Kind().String()
	}
}

// The types are those of the specification's own module, but for the digests.
func TestSpecification(t *testing.T) {
	for ours, theirs := range map[reflect.Type]reflect.Type{
		reflect.TypeFor[Config]():     reflect.TypeFor[ispec.Image](),
		reflect.TypeFor[Index]():      reflect.TypeFor[ispec.Index](),
		reflect.TypeFor[Descriptor](): reflect.TypeFor[ispec.Descriptor](),
	} {
		if got, want := shape(ours), shape(theirs); got != want {
			t.Errorf("%v:\n got %s\nwant %s", ours, got, want)
		}
	}
}

func TestSplitDigest(t *testing.T) {
	const sum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	if algorithm, encoded, err := splitDigest("sha256:" + sum); algorithm != "sha256" || encoded != sum || err != nil {
		t.Errorf("splitDigest = %q, %q, %v", algorithm, encoded, err)
	}
	for _, bad := range []string{"", ":", sum, "sha256:", "sha256:" + sum[2:], "sha512:" + sum, "md5:" + sum[:32], "sha256:" + strings.ToUpper(sum), "sha256:../../" + sum[12:]} {
		if _, _, err := splitDigest(bad); err == nil {
			t.Errorf("splitDigest(%q) takes it", bad)
		}
	}
}
