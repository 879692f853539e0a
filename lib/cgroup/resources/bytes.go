package resources

import (
	"errors"
	"strconv"
	"strings"
)

// ParseBytes reads an amount as docker and runc take it: a number, which can have
// a fraction, and k, m, g or t for powers of 1024, alone or with b or ib behind
// it. A number alone counts in units of bare bytes.
func ParseBytes(s string, bare int64) (int64, error) {
	end := strings.LastIndexAny(s, "0123456789.") + 1
	number, unit := s[:end], bare
	switch name := strings.ToLower(s[end:]); {
	case name == "":
	case name == "b":
		unit = 1
	default:
		prefix := strings.TrimSuffix(strings.TrimSuffix(name, "b"), "i")
		power := strings.Index("kmgt", prefix) + 1
		if len(prefix) != 1 || power == 0 || strings.HasSuffix(name, "i") {
			return 0, ErrNotBytes
		}
		unit = 1 << (10 * power)
	}
	if strings.Trim(number, "0123456789.") != "" || strings.HasPrefix(number, ".") {
		return 0, ErrNotBytes // such as an exponent or a sign
	}
	if n, err := strconv.ParseInt(number, 10, 64); err == nil {
		if n > (1<<63-1)/unit {
			return 0, ErrTooManyBytes
		}
		return n * unit, nil
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, ErrNotBytes
	}
	if n *= float64(unit); n >= 1<<63 {
		return 0, ErrTooManyBytes
	}
	return int64(n), nil
}
