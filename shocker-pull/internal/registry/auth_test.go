package registry

import (
	"reflect"
	"strings"
	"testing"

	"github.com/docker/cli/cli/config/types"
)

func TestChallenges(t *testing.T) {
	got := challenges([]string{`Bearer realm="https://auth.example/token?x=1,2",service="a \"b\"", scope=repository:x:pull`, "Basic"})
	want := []challenge{
		{"bearer", map[string]string{"realm": "https://auth.example/token?x=1,2", "service": `a "b"`, "scope": "repository:x:pull"}},
		{"basic", map[string]string{}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("challenges = %+v; want %+v", got, want)
	}
}

// TestTokenServerWithoutTLS: a password never goes out in the clear because a
// registry says so.
func TestTokenServerWithoutTLS(t *testing.T) {
	a := &authorizer{home: "https://registry.example"}
	c := challenge{"bearer", map[string]string{"realm": "http://token.example/"}}
	_, err := a.token(t.Context(), c, types.AuthConfig{Username: "me", Password: "secret"})
	if err == nil || !strings.Contains(err.Error(), "without TLS") {
		t.Errorf("token from a server without TLS: %v; want it refused", err)
	}
}
