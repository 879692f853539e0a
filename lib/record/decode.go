package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Decode reads an OCI runtime config, less what it says to other systems.
func Decode(config []byte) (*specs.Spec, error) {
	spec := &specs.Spec{}
	return spec, Unmarshal(config, &ours{Spec: spec})
}

// ours is a config without what is for other systems. encoding/json looks into
// each type of a document once in every process, and these are half of them.
type ours struct {
	*specs.Spec
	Solaris *struct{} `json:"solaris,omitempty"`
	Windows *struct{} `json:"windows,omitempty"`
	VM      *struct{} `json:"vm,omitempty"`
	ZOS     *struct{} `json:"zos,omitempty"`
	FreeBSD *struct{} `json:"freebsd,omitempty"`
}

// Unmarshal is json.Unmarshal for what people and other programs write. It
// refuses bytes that are not UTF-8 (RFC 8259, section 8.1), which would be
// replaced in silence, and says what is wrong in the document's own words.
func Unmarshal(data []byte, v any) error {
	if err := checkText(data); err != nil {
		return err
	}
	err := json.Unmarshal(data, v)
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return err
	}
	field := strings.TrimPrefix(wrong.Field, "Spec.") // of ours
	if field == "" {
		field = "the document"
	}
	return fmt.Errorf("%s: %s: want %s", field, wrong.Value, kindOf(wrong.Type))
}

// checkText refuses what cannot be the text of JSON.
func checkText(data []byte) error {
	if bytes.HasPrefix(data, []byte("\uFEFF")) {
		return errors.New("it begins with a byte order mark, which JSON does not have: remove it")
	}
	if !utf8.Valid(data) {
		return fmt.Errorf("byte %d is not UTF-8, as JSON has to be", validPrefix(data))
	}
	return nil
}

// checkJSON refuses what is not JSON, whatever it should say.
func checkJSON(data []byte) error {
	if err := checkText(data); err != nil || json.Valid(data) {
		return err
	}
	var v any
	return json.Unmarshal(data, &v) // which tells why
}

// validPrefix is how many bytes at the beginning of data are UTF-8.
func validPrefix(data []byte) (n int) {
	for n < len(data) {
		r, size := utf8.DecodeRune(data[n:])
		if r == utf8.RuneError && size == 1 {
			break
		}
		n += size
	}
	return n
}

// kindOf names what JSON has for a type.
func kindOf(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.Struct, reflect.Map:
		return "an object"
	default:
		return "a number of type " + t.Kind().String()
	}
}
