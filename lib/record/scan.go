package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// A record is read and changed many times on its way, and most of it is of no
// concern each time: a seccomp profile alone is larger than the rest. So what is
// not asked for is only stepped over. The text has been found valid before.

// errCut is a text that was not found valid before.
var errCut = errors.New("not a JSON object")

// skipSpace returns where the next token begins.
func skipSpace(data []byte, i int) int {
	for i < len(data) && (data[i] == ' ' || data[i] == '\t' || data[i] == '\n' || data[i] == '\r') {
		i++
	}
	return i
}

// skipString returns the end of the string that begins at i.
func skipString(data []byte, i int) int {
	for i++; i < len(data); i++ {
		switch data[i] {
		case '"':
			return i + 1
		case '\\':
			i++
		}
	}
	return len(data)
}

// skipValue returns the end of the value that begins at i.
func skipValue(data []byte, i int) int {
	depth := 0
	for i < len(data) {
		switch data[i] {
		case '"':
			i = skipString(data, i)
		case '{', '[':
			depth++
			i++
			continue
		case '}', ']':
			depth--
			i++
		case ',', ':', ' ', '\t', '\n', '\r':
			i++
			continue
		default:
			i = skipScalar(data, i)
		}
		if depth <= 0 {
			return i
		}
	}
	return i
}

// skipScalar returns the end of the number or word that begins at i.
func skipScalar(data []byte, i int) int {
	for i < len(data) && bytes.IndexByte([]byte(",:]} \t\n\r"), data[i]) < 0 {
		i++
	}
	return i
}

// members calls member for each key of the object at i, with where its value
// begins; that returns where it ends. It returns the object's end.
func members(data []byte, i int, member func(name string, key []byte, at int) (end int, err error)) (end int, err error) {
	if i >= len(data) || data[i] != '{' {
		return 0, errCut
	}
	var names []string
	var seen map[string]bool
	for i++; ; {
		if i = skipSpace(data, i); i < len(data) && data[i] == ',' {
			i = skipSpace(data, i+1)
		}
		switch {
		case i < len(data) && data[i] == '}':
			return i + 1, nil
		case i >= len(data) || data[i] != '"':
			return 0, errCut
		}
		key := data[i:skipString(data, i)]
		name, err := unquote(key)
		if err != nil {
			return 0, err
		}
		names, seen = note(names, seen, name)
		if names == nil {
			// Readers differ in which of two equal keys they take.
			return 0, fmt.Errorf("key %s appears twice", strconv.Quote(name))
		}
		if i = skipSpace(data, i+len(key)); i >= len(data) || data[i] != ':' {
			return 0, errCut
		}
		if i, err = member(name, key, skipSpace(data, i+1)); err != nil {
			return 0, err
		}
	}
}

// note adds a name to those seen in an object, in a list as long as there are
// few. It returns no names if it has been there before.
func note(names []string, seen map[string]bool, name string) ([]string, map[string]bool) {
	if seen == nil {
		for _, n := range names {
			if n == name {
				return nil, nil
			}
		}
		if names = append(names, name); len(names) > 16 {
			seen = make(map[string]bool, 2*len(names))
			for _, n := range names {
				seen[n] = true
			}
		}
		return names, seen
	}
	if seen[name] {
		return nil, nil
	}
	seen[name] = true
	return names, seen
}

// unquote returns what a quoted string says.
func unquote(quoted []byte) (name string, err error) {
	if len(quoted) < 2 {
		return "", errCut
	}
	for _, c := range quoted {
		if c == '\\' || c >= 0x80 {
			err := json.Unmarshal(quoted, &name)
			return name, err
		}
	}
	return string(quoted[1 : len(quoted)-1]), nil
}

// checkKeys refuses an object, at any depth, in which a key appears twice.
func checkKeys(data []byte) error {
	_, err := checkValue(data, skipSpace(data, 0))
	return err
}

// checkValue checks the value that begins at i and returns its end.
func checkValue(data []byte, i int) (end int, err error) {
	switch {
	case i >= len(data):
		return 0, errCut
	case data[i] == '{':
		return members(data, i, func(_ string, _ []byte, at int) (int, error) { return checkValue(data, at) })
	case data[i] != '[':
		return skipValue(data, i), nil
	}
	for i++; ; {
		if i = skipSpace(data, i); i < len(data) && data[i] == ',' {
			i = skipSpace(data, i+1)
		}
		if i < len(data) && data[i] == ']' {
			return i + 1, nil
		}
		if i, err = checkValue(data, i); err != nil {
			return 0, err
		}
	}
}

// checkNumbers refuses integers that other JSON readers would round.
func checkNumbers(data []byte) error {
	for i := 0; i < len(data); {
		c := data[i]
		switch {
		case c == '"':
			i = skipString(data, i)
			continue
		case c != '-' && (c < '0' || c > '9'):
			i++
			continue
		}
		number := data[i:skipScalar(data, i)]
		i += len(number)
		if len(number) < len("9007199254740992") && !bytes.ContainsAny(number, "eE") {
			continue
		}
		if f, err := strconv.ParseFloat(string(number), 64); err != nil || f > maxInteger || f < -maxInteger {
			return fmt.Errorf("%w: %s is beyond 2^53", ErrInvalid, number)
		}
	}
	return nil
}
