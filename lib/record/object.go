package record

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
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
	dec := json.NewDecoder(bytes.NewReader(data))
	tok, err := dec.Token()
	if err != nil {
		return nil, err
	}
	if tok != json.Delim('{') {
		return nil, fmt.Errorf("not a JSON object")
	}
	var o object
	seen := make(map[string]bool)
	for dec.More() {
		start := dec.InputOffset()
		tok, err := dec.Token()
		if err != nil {
			return nil, err
		}
		name, ok := tok.(string)
		if !ok {
			return nil, fmt.Errorf("not a JSON object")
		}
		if seen[name] {
			// Readers differ in which of two equal keys they take.
			return nil, fmt.Errorf("key %s appears twice", strconv.Quote(name))
		}
		seen[name] = true
		key := bytes.TrimLeft(data[start:dec.InputOffset()], ", \t\r\n")
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, err
		}
		o = append(o, member{name, key, value})
	}
	return o, nil
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

// checkKeys refuses an object, at any depth, in which a key appears twice.
func checkKeys(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	type level struct {
		keys  map[string]bool // nil inside an array
		value bool            // the next token is a value
	}
	var stack []level
	for {
		tok, err := dec.Token()
		if err != nil {
			if len(stack) == 0 {
				return nil // io.EOF: json.Valid has seen the rest
			}
			return err
		}
		top := len(stack) - 1
		if top >= 0 && stack[top].keys != nil && !stack[top].value {
			if name, ok := tok.(string); ok {
				if stack[top].keys[name] {
					return fmt.Errorf("key %s appears twice", strconv.Quote(name))
				}
				stack[top].keys[name] = true
				stack[top].value = true
				continue
			}
		}
		switch tok {
		case json.Delim('{'):
			stack = append(stack, level{keys: make(map[string]bool)})
			continue
		case json.Delim('['):
			stack = append(stack, level{})
			continue
		case json.Delim('}'), json.Delim(']'):
			stack = stack[:top]
		}
		if n := len(stack); n > 0 {
			stack[n-1].value = false
		}
	}
}
