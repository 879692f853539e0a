package record

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// member is one key of a JSON object with the bytes it was written in.
type member struct {
	name  string
	key   []byte // quoted, as read
	value json.RawMessage
}

// object is a JSON object that keeps the order and the bytes of its members.
type object []member

// parseObject splits one JSON object into its members. The values are not
// copied: they alias data.
func parseObject(data []byte) (object, error) {
	var o object
	_, err := members(data, skipSpace(data, 0), func(name string, key []byte, at int) (int, error) {
		end := skipValue(data, at)
		o = append(o, member{name, key, data[at:end:end]})
		return end, nil
	})
	return o, err
}

// find returns the index of the member called name, or -1.
func (o object) find(name string) int {
	for i := range o {
		if o[i].name == name {
			return i
		}
	}
	return -1
}

// bytes writes the object back on one line.
func (o object) bytes() json.RawMessage {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(m.key)
		b.WriteByte(':')
		b.Write(m.value)
	}
	b.WriteByte('}')
	return b.Bytes()
}

// with returns data, an object, in which path has the given value; a nil
// value removes the last key of path.
func with(data json.RawMessage, path []string, value json.RawMessage) (json.RawMessage, error) {
	if len(path) == 0 {
		return value, nil
	}
	o, err := parseObject(data)
	if err != nil {
		return nil, err
	}
	i := o.find(path[0])
	if i < 0 {
		if value == nil {
			return data, nil
		}
		key, err := json.Marshal(path[0])
		if err != nil {
			return nil, err
		}
		o = append(o, member{path[0], key, json.RawMessage("{}")})
		i = len(o) - 1
	}
	if len(path) == 1 && value == nil {
		return append(o[:i:i], o[i+1:]...).bytes(), nil
	}
	inner := o[i].value
	if len(path) > 1 && string(inner) == "null" {
		inner = json.RawMessage("{}")
	}
	if o[i].value, err = with(inner, path[1:], value); err != nil {
		return nil, fmt.Errorf("%s: %w", path[0], err)
	}
	return o.bytes(), nil
}

// at returns the raw value at path, or nil.
func at(data json.RawMessage, path []string) (json.RawMessage, error) {
	for _, name := range path {
		if string(data) == "null" {
			return nil, nil
		}
		o, err := parseObject(data)
		if err != nil {
			return nil, err
		}
		i := o.find(name)
		if i < 0 {
			return nil, nil
		}
		data = o[i].value
	}
	return data, nil
}
