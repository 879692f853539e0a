package oci

import (
	"errors"
	"strings"
	"testing"
)

func TestCheckID(t *testing.T) {
	for id, valid := range map[string]bool{
		"a": true, "ps_42_x": true, "A-z.0+9": true, "...": true, "-": true,
		strings.Repeat("a", 255): true, strings.Repeat("a", 256): false,
		"": false, ".": false, "..": false, "a/b": false, "a b": false, "a\n": false, "ä": false, "a\xff": false,
	} {
		if err := checkID(id); (err == nil) != valid || err != nil && !errors.Is(err, ErrInvalidID) {
			t.Errorf("checkID(%q) = %v; valid: %t", id, err, valid)
		}
	}
	if err := checkID(strings.Repeat("a", 300)); !strings.Contains(err.Error(), "300 characters: 255 at most") {
		t.Errorf("checkID of 300 letters = %v; want how many there can be", err)
	}
}
