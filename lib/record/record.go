// Package record is the document that travels between the stages of a run:
// one OCI runtime-spec config on one line of JSON.
//
// A stage changes only the keys it owns. All others, known or unknown, leave
// as the bytes that came in, so that a stage of one version passes on what a
// newer one has put in.
package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Annotations that Shocker's stages write. The id is required in every record.
const (
	AnnotationID      = "sh.shocker.id"      // ps_42045
	AnnotationName    = "sh.shocker.name"    // given with --name
	AnnotationImage   = "sh.shocker.image"   // img_42150
	AnnotationSource  = "sh.shocker.source"  // debian:12
	AnnotationAddress = "sh.shocker.address" // 10.0.0.7
	AnnotationNetwork = "sh.shocker.network" // none or host, if not the bridge
	AnnotationStop    = "org.opencontainers.image.stopSignal"
)

// maxInteger is the largest integer that every JSON reader keeps exact
// (RFC 8259, section 6): jq 1.6 rounds beyond it.
const maxInteger = 1 << 53

// Record is one container's OCI runtime config. The zero value is not usable:
// records come from Parse or New.
type Record struct {
	data json.RawMessage
	id   string
}

// New makes a record from a typed config, which must carry an id.
func New(spec *specs.Spec) (*Record, error) {
	data, err := encode(ours{Spec: spec})
	if err != nil {
		return nil, err
	}
	return Parse(data)
}

// Parse reads one record. It must be a JSON object without repeated keys
// and have an id in its annotations; anything else is ErrInvalid.
func Parse(data []byte) (*Record, error) {
	if err := checkJSON(data); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	var line bytes.Buffer
	if bytes.ContainsAny(data, "\r\n") {
		if err := json.Compact(&line, data); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
	} else {
		line.Write(bytes.TrimSpace(data))
	}
	r := &Record{data: line.Bytes()}
	if line.Len() == 0 || r.data[0] != '{' {
		return nil, fmt.Errorf("%w: not a JSON object", ErrInvalid)
	}
	if err := checkKeys(r.data); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	found, err := r.Get(&r.id, "annotations", AnnotationID)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if !found {
		return nil, ErrNoID
	}
	if err := CheckID(r.id); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return r, nil
}

// Adopt makes a record of a config that has no id yet, or this one.
func Adopt(config []byte, id string) (*Record, error) {
	if err := checkJSON(config); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	raw, err := encode(id)
	if err != nil {
		return nil, err
	}
	data, err := with(config, []string{"annotations", AnnotationID}, raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return Parse(data)
}

// CheckID refuses what could not be a directory and cgroup name of its own:
// an id is 1 to 128 of the letters, digits, "_", "-", "." and "+", and begins
// with a letter or digit.
func CheckID(id string) error {
	ok := len(id) > 0 && len(id) <= 128
	for i := 0; ok && i < len(id); i++ {
		c := id[i]
		alnum := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		ok = alnum || i > 0 && (c == '_' || c == '-' || c == '.' || c == '+')
	}
	if !ok {
		return fmt.Errorf("%w: %q", ErrBadID, id)
	}
	return nil
}

// ID is the container's id.
func (r *Record) ID() string { return r.id }

// Line is the record with its newline, ready to be written at once.
func (r *Record) Line() []byte { return append(bytes.Clone(r.data), '\n') }

// Clone returns a copy that can be changed by itself.
func (r *Record) Clone() *Record { return &Record{data: bytes.Clone(r.data), id: r.id} }

// Spec decodes the record. Changes to what it returns do not reach the
// record: use Set.
func (r *Record) Spec() (*specs.Spec, error) {
	spec, err := Decode(r.data)
	if err != nil {
		return nil, fmt.Errorf("record of %s: %w", r.id, err)
	}
	return spec, nil
}

// Get decodes the value at path into v and says whether there is one.
func (r *Record) Get(v any, path ...string) (bool, error) {
	raw, err := at(r.data, path)
	if err != nil || raw == nil {
		return false, err
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return false, fmt.Errorf("%v: %w", path, err)
	}
	return true, nil
}

// Annotation returns the annotation of that name, or "".
func (r *Record) Annotation(name string) string {
	var s string
	if _, err := r.Get(&s, "annotations", name); err != nil {
		return ""
	}
	return s
}

// Set puts v at path, making the objects on the way. The id cannot be
// changed, and no integer above 2^53 may come in.
func (r *Record) Set(v any, path ...string) error {
	raw, err := encode(v)
	if err != nil {
		return fmt.Errorf("set %v: %w", path, err)
	}
	data, err := with(r.data, path, raw)
	if err != nil {
		return fmt.Errorf("set %v in the record of %s: %w", path, r.id, err)
	}
	return r.replace(data)
}

// Delete removes what is at path; it is no error if nothing is.
func (r *Record) Delete(path ...string) error {
	if len(path) == 0 {
		return errors.New("delete needs a path")
	}
	data, err := with(r.data, path, nil)
	if err != nil {
		return fmt.Errorf("delete %v in the record of %s: %w", path, r.id, err)
	}
	return r.replace(data)
}

func (r *Record) replace(data json.RawMessage) error {
	next := &Record{data: data}
	if _, err := next.Get(&next.id, "annotations", AnnotationID); err != nil || next.id != r.id {
		return fmt.Errorf("%w: the id of %s cannot be changed", ErrInvalid, r.id)
	}
	r.data = data
	return nil
}

// encode marshals without escaping <, > and &, and refuses integers that
// other JSON readers would round.
func encode(v any) (json.RawMessage, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	raw := bytes.TrimRight(b.Bytes(), "\n")
	return raw, checkNumbers(raw)
}
