package resources

import (
	"errors"
	"strings"
	"testing"
)

func TestParseBytes(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "7": 7e6, "7b": 7, "7B": 7, "64m": 64 << 20, "64M": 64 << 20, "64mb": 64 << 20, "100MiB": 100 << 20,
		"1.5g": 3 << 29, "0.5": 5e5, "1.": 1e6, "2t": 2 << 40, "1k": 1024, "9223372036854775807b": 1<<63 - 1,
	} {
		if got, err := ParseBytes(text, 1e6); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "m", ".5g", "-1", "+1", "1e3", "1x", "1ki", "1ib", "1bb", "1kk", "1 k", "0x10", "1_000", "1.5.2m", "inf", "nan", "１m",
	} {
		if got, err := ParseBytes(text, 1e6); !errors.Is(err, ErrNotBytes) {
			t.Errorf("%q: %d, %v; want ErrNotBytes", text, got, err)
		}
	}
	for _, text := range []string{"9223372036854775808b", "8388608t", "9999999999999999999", "16777216.5t", strings.Repeat("9", 400)} {
		if got, err := ParseBytes(text, 1e6); !errors.Is(err, ErrTooManyBytes) {
			t.Errorf("%q: %d, %v; want ErrTooManyBytes", text, got, err)
		}
	}
}
