package registry

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	digest "github.com/opencontainers/go-digest"
)

// TestMain lets this process trust the certificate of httptest's TLS servers.
func TestMain(m *testing.M) {
	os.Exit(func() int {
		server := httptest.NewTLSServer(nil)
		server.Close()
		f, err := os.CreateTemp("", "certificate")
		if err != nil {
			panic(err)
		}
		defer os.Remove(f.Name())
		err = pem.Encode(f, &pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
		if err = errors.Join(err, f.Close()); err != nil {
			panic(err)
		}
		os.Setenv("SSL_CERT_FILE", f.Name())
		os.Unsetenv("REGISTRY_AUTH_FILE")
		return m.Run()
	}())
}

func TestChallenges(t *testing.T) {
	for _, test := range []struct {
		headers []string
		want    []challenge
	}{
		{[]string{`Basic realm="a b"`}, []challenge{{"basic", map[string]string{"realm": "a b"}}}},
		{
			[]string{`Bearer realm="https://x/t",service=s, scope="repository:a:pull,push"`},
			[]challenge{{"bearer", map[string]string{"realm": "https://x/t", "service": "s", "scope": "repository:a:pull,push"}}},
		},
		{
			[]string{`Negotiate, BASIC realm="q\"\\"`, `Bearer`},
			[]challenge{{"negotiate", map[string]string{}}, {"basic", map[string]string{"realm": `q"\`}}, {"bearer", map[string]string{}}},
		},
		{[]string{`realm="nobody's"`, ``, ` , `, `x="`}, nil},
		{[]string{`Bearer realm="cut`}, []challenge{{"bearer", map[string]string{"realm": "cut"}}}},
		{[]string{`Bearer realm="cut\`}, []challenge{{"bearer", map[string]string{"realm": "cut"}}}},
	} {
		if got := challenges(test.headers); !reflect.DeepEqual(got, test.want) {
			t.Errorf("challenges(%q) = %v; want %v", test.headers, got, test.want)
		}
	}
}

func FuzzChallenges(f *testing.F) {
	f.Add(`Bearer realm="https://x/t",service=s, scope="repository:a:pull"`)
	f.Fuzz(func(_ *testing.T, s string) { challenges([]string{s}) })
}

// login stores credentials for hosts as docker login does.
func login(t *testing.T, auths map[string]any) {
	t.Helper()
	data, err := json.Marshal(map[string]any{"auths": auths})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "auth.json")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("REGISTRY_AUTH_FILE", path)
}

func password(user, pass string) map[string]any {
	r := &http.Request{Header: make(http.Header)}
	r.SetBasicAuth(user, pass)
	return map[string]any{"auth": strings.TrimPrefix(r.Header.Get("Authorization"), "Basic ")}
}

// blob asks a registry for the blob "data" and returns what came.
func blob(t *testing.T, server *httptest.Server) (string, error) {
	t.Helper()
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := Parse(u.Host + "/some/image:1")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Open(t.Context(), ref)
	if err != nil {
		return "", err
	}
	text := ""
	err = c.Retry(t.Context(), func() error {
		r, _, err := c.Blob(t.Context(), digest.FromString("data"), 0)
		if err != nil {
			return err
		}
		defer r.Close()
		data, err := io.ReadAll(r)
		text = string(data)
		return err
	})
	return text, err
}

// TestToken: a token server of another address gives tokens to who has the
// password, each good for one blob.
func TestToken(t *testing.T) {
	tokens, asked := 0, []string{}
	tokenServer := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, pass, _ := r.BasicAuth()
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		asked = append(asked, r.Method+" "+r.Form.Encode())
		if user+pass != "mepw" && r.Form.Get("refresh_token") != "id" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		tokens++
		fmt.Fprintf(w, `{"access_token":"t%d"}`, tokens)
	}))
	defer tokenServer.Close()
	storage := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" || r.Header.Get("Cookie") != "" {
			t.Errorf("the host of the blobs was sent %q", r.Header)
		}
		fmt.Fprint(w, "data")
	}))
	defer storage.Close()
	registry := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		if r.Header.Get("Authorization") != fmt.Sprintf("Bearer t%d", tokens) {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="s"`, tokenServer.URL+"/token"))
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		http.Redirect(w, r, storage.URL+"/?secret", http.StatusTemporaryRedirect)
	}))
	defer registry.Close()
	host := strings.TrimPrefix(registry.URL, "https://")

	login(t, map[string]any{host: password("me", "pw")})
	if got, err := blob(t, registry); got != "data" {
		t.Errorf("with the password: %q, %v", got, err)
	}
	tokens++ // the last one has run out
	if got, err := blob(t, registry); got != "data" {
		t.Errorf("with a token that has run out: %q, %v", got, err)
	}
	login(t, map[string]any{host: map[string]any{"identitytoken": "id"}})
	if got, err := blob(t, registry); got != "data" {
		t.Errorf("with an identity token: %q, %v", got, err)
	}
	query := "scope=repository%3Asome%2Fimage%3Apull&service=s"
	want := []string{"GET " + query, "GET " + query, "POST client_id=shocker&grant_type=refresh_token&refresh_token=id&" + query}
	if !reflect.DeepEqual(asked, want) {
		t.Errorf("the token server was asked %q; want %q", asked, want)
	}
	login(t, map[string]any{"other.example": password("me", "pw")})
	if _, err := blob(t, registry); !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), tokenServer.URL) {
		t.Errorf("without a password: %v; want ErrDenied, and the token server named", err)
	}
}

func TestBasic(t *testing.T) {
	requests := 0
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests++
		if user, pass, _ := r.BasicAuth(); user+pass != "mepw" {
			w.Header().Set("WWW-Authenticate", `Basic realm="here"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, "data")
	}))
	defer registry.Close()
	host := strings.TrimPrefix(registry.URL, "http://")
	login(t, map[string]any{host: password("me", "pw")})
	if got, err := blob(t, registry); got != "data" {
		t.Errorf("with the password: %q, %v", got, err)
	}
	login(t, map[string]any{host: password("me", "wrong")})
	requests = 0
	if _, err := blob(t, registry); !errors.Is(err, ErrDenied) || requests != 2 {
		t.Errorf("with a wrong password: %v after %d requests; want ErrDenied after 2", err, requests)
	}
}

// TestOtherHost: a host that blobs are on may ask for a token as well, and gets
// one that needs no password.
func TestOtherHost(t *testing.T) {
	var other *httptest.Server
	other = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			if r.Header.Get("Authorization") != "" {
				t.Errorf("a foreign token server was sent %q", r.Header.Get("Authorization"))
			}
			fmt.Fprint(w, `{"token":"anybody"}`)
		case r.Header.Get("Authorization") == "Bearer anybody":
			fmt.Fprint(w, "data")
		default:
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q`, other.URL+"/token"))
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer other.Close()
	registry := httptest.NewTLSServer(http.RedirectHandler(other.URL+"/x", http.StatusTemporaryRedirect))
	defer registry.Close()
	login(t, map[string]any{strings.TrimPrefix(registry.URL, "https://"): password("me", "pw")})
	if got, err := blob(t, registry); got != "data" {
		t.Errorf("blob of another host: %q, %v", got, err)
	}
}

// TestNotInTheClear: what begins with TLS stays so.
func TestNotInTheClear(t *testing.T) {
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("asked in the clear for %s", r.URL)
	}))
	defer plain.Close()
	redirects := httptest.NewTLSServer(http.RedirectHandler(plain.URL, http.StatusTemporaryRedirect))
	defer redirects.Close()
	login(t, map[string]any{strings.TrimPrefix(redirects.URL, "https://"): password("me", "pw")})
	if _, err := blob(t, redirects); !errors.Is(err, ErrRedirect) && !errors.Is(err, ErrPlain) {
		t.Errorf("redirected to http: %v; want ErrRedirect", err)
	}
	challenges := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q`, plain.URL))
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer challenges.Close()
	if _, err := blob(t, challenges); !errors.Is(err, ErrPlain) {
		t.Errorf("a token server without TLS: %v; want ErrPlain", err)
	}
	// A registry on this machine, to which plain HTTP is spoken, sends nobody
	// elsewhere with it.
	for _, bend := range []func(http.ResponseWriter){
		func(w http.ResponseWriter) {
			w.Header().Set("Location", "http://registry.example/blob")
			w.WriteHeader(http.StatusTemporaryRedirect)
		},
		func(w http.ResponseWriter) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://registry.example/token"`)
			w.WriteHeader(http.StatusUnauthorized)
		},
	} {
		local := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { bend(w) }))
		defer local.Close()
		login(t, map[string]any{strings.TrimPrefix(local.URL, "http://"): password("me", "pw")})
		if _, err := blob(t, local); !errors.Is(err, ErrPlain) {
			t.Errorf("from this machine to another: %v; want ErrPlain", err)
		}
	}
	for host, want := range map[string]bool{
		"127.0.0.1:5000": true, "127.9.9.9": true, "[::1]:5000": true, "localhost:1": true, "localhost": true, "x.localhost": true,
		"10.0.0.1:5000": false, "192.168.0.1": false, "example.com": false, "localhost.example.com:5000": false, "127.0.0.1.example.com": false,
	} {
		if got := loopback(host); got != want {
			t.Errorf("loopback(%q) = %v; want %v", host, got, want)
		}
	}
}

// TestSecretsOfRedirects: the query of an address may be what opens it.
func TestSecretsOfRedirects(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	registry := httptest.NewServer(http.RedirectHandler(gone.URL+"/blob?signature=secret", http.StatusTemporaryRedirect))
	defer registry.Close()
	login(t, nil)
	_, err := blob(t, registry)
	if err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), gone.URL+"/blob") {
		t.Errorf("a blob host that is down: %v; want its address without the query", err)
	}
}

func TestCredentials(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	for _, name := range []string{"XDG_CONFIG_HOME", "DOCKER_CONFIG"} {
		t.Setenv(name, "")
	}
	t.Setenv("XDG_RUNTIME_DIR", filepath.Join(home, "run"))
	write := func(path string, auths map[string]any) {
		t.Helper()
		data, err := json.Marshal(map[string]any{"auths": auths})
		path = filepath.Join(home, path)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(path), 0o700)
		}
		if err == nil {
			err = os.WriteFile(path, data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write("run/containers/auth.json", map[string]any{
		"docker.io": password("podman", "x"), "a.example/team/app": password("app", "x"), "a.example/team": password("team", "x"),
	})
	write(".docker/config.json", map[string]any{
		"https://index.docker.io/v1/": password("docker", "x"), "a.example": password("all", "x"), "b.example:5000": password("b", "x"),
	})
	for ref, want := range map[string]string{
		"debian": "podman", "a.example/team/app": "app", "a.example/team/other": "team", "a.example/x": "all",
		"b.example:5000/x": "b", "b.example/x": "", "c.example/x": "",
	} {
		parsed, err := Parse(ref)
		if err != nil {
			t.Fatal(err)
		}
		auth, err := credentials(t.Context(), parsed.Context())
		if err != nil || auth.Username != want {
			t.Errorf("credentials for %s: %q, %v; want %q", ref, auth.Username, err, want)
		}
	}
}
