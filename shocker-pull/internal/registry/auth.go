package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/docker/cli/cli/config/types"
)

// authorizer answers the challenges of registries, as the distribution project's
// token and oauth2 documents say:
//
//	we ──── GET blob ──────────────▶ registry
//	we ◀─── 401, realm, scope ────── registry
//	we ──── GET realm?scope=… ─────▶ token server   (with name and password)
//	we ◀─── token ────────────────── token server
//	we ──── GET blob, token ───────▶ registry
//
// Credentials are only for the registry itself; a host that it redirects to
// is asked without any. A token that has run out is answered with another 401,
// and is got again.
type authorizer struct {
	inner http.RoundTripper
	home  string // scheme and host that the credentials are for
	scope string // if a challenge names none
	creds types.AuthConfig

	mu      sync.Mutex
	headers map[string]string // Authorization, by scheme and host
}

func origin(u *url.URL) string { return u.Scheme + "://" + u.Host }

func (a *authorizer) RoundTrip(req *http.Request) (*http.Response, error) {
	a.mu.Lock()
	header := a.headers[origin(req.URL)]
	a.mu.Unlock()
	resp, err := a.send(req, header)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	header, err = a.answer(req, header, challenges(resp.Header.Values("WWW-Authenticate")))
	if err != nil || header == "" {
		if err != nil {
			resp.Body.Close()
			return nil, err
		}
		return resp, nil // whose text explains
	}
	resp.Body.Close()
	return a.send(req, header)
}

func (a *authorizer) send(req *http.Request, header string) (*http.Response, error) {
	if header != "" {
		req = req.Clone(req.Context())
		req.Header.Set("Authorization", header)
	}
	return a.inner.RoundTrip(req)
}

// answer returns what to send instead of the header that was refused, or "".
func (a *authorizer) answer(req *http.Request, refused string, all []challenge) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	host := origin(req.URL)
	if now := a.headers[host]; now != refused {
		return now, nil // got by another request meanwhile
	}
	creds := a.creds
	if host != a.home {
		creds = types.AuthConfig{}
	}
	header := ""
	for _, c := range all {
		switch {
		case c.scheme == "bearer" && creds.RegistryToken != "":
			header = "Bearer " + creds.RegistryToken
		case c.scheme == "bearer":
			token, err := a.token(req.Context(), c, creds)
			if err != nil {
				return "", err
			}
			header = "Bearer " + token
		case c.scheme == "basic" && creds.Username != "":
			header = basic(creds)
		default:
			continue
		}
		break
	}
	if header == refused {
		return "", nil
	}
	a.headers[host] = header
	return header, nil
}

func basic(c types.AuthConfig) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.Username+":"+c.Password))
}

// token gets a token from the server that the challenge names.
func (a *authorizer) token(ctx context.Context, c challenge, creds types.AuthConfig) (_ string, retErr error) {
	realm, err := url.Parse(c.params["realm"])
	if err != nil || realm.Host == "" {
		return "", fmt.Errorf("the registry names no token server, but %q", c.params["realm"])
	}
	if strings.HasPrefix(a.home, "https:") && realm.Scheme != "https" {
		return "", fmt.Errorf("%w: token server %s", ErrPlain, origin(realm))
	}
	defer func() {
		if retErr != nil {
			retErr = fmt.Errorf("token from %s: %w", origin(realm), retErr)
		}
	}()
	v := realm.Query()
	if service := c.params["service"]; service != "" {
		v.Set("service", service)
	}
	scope := c.params["scope"]
	if scope == "" {
		scope = a.scope
	}
	v.Set("scope", scope)
	req, err := tokenRequest(ctx, realm, v, creds)
	if err != nil {
		return "", err
	}
	client := &http.Client{Transport: a.inner, CheckRedirect: redirect}
	resp, err := client.Do(req)
	if err != nil {
		return "", withoutQuery(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", newStatusError(resp)
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	var t struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"` // the same in oauth2
	}
	if err := json.Unmarshal(text, &t); err != nil {
		return "", err
	}
	if t.Token == "" {
		t.Token = t.AccessToken
	}
	if t.Token == "" {
		return "", fmt.Errorf("there is none in the answer")
	}
	return t.Token, nil
}

func tokenRequest(ctx context.Context, realm *url.URL, v url.Values, creds types.AuthConfig) (*http.Request, error) {
	if creds.IdentityToken != "" {
		v.Set("grant_type", "refresh_token")
		v.Set("refresh_token", creds.IdentityToken)
		v.Set("client_id", "shocker")
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, realm.String(), strings.NewReader(v.Encode()))
		if err == nil {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		return req, err
	}
	u := *realm
	u.RawQuery = v.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err == nil && creds.Username != "" {
		req.Header.Set("Authorization", basic(creds))
	}
	return req, err
}

// challenge is one of WWW-Authenticate (RFC 9110, section 11.6.1).
type challenge struct {
	scheme string // in lower case
	params map[string]string
}

// challenges reads the headers: schemes with parameters, all separated by
// commas, values in quotes or not.
func challenges(headers []string) []challenge {
	var all []challenge
	for _, s := range headers {
		for s = strings.TrimLeft(s, " ,\t"); s != ""; s = strings.TrimLeft(s, " ,\t") {
			n := strings.IndexAny(s, " =,\t")
			if n < 0 {
				n = len(s)
			}
			word := strings.ToLower(s[:n])
			s = s[n:]
			if !strings.HasPrefix(s, "=") {
				all = append(all, challenge{word, make(map[string]string)})
				continue
			}
			var value string
			value, s = paramValue(s[1:])
			if len(all) > 0 {
				all[len(all)-1].params[word] = value
			}
		}
	}
	return all
}

// paramValue takes the value of a parameter off s.
func paramValue(s string) (value, rest string) {
	if !strings.HasPrefix(s, `"`) {
		n := strings.IndexAny(s, " ,\t")
		if n < 0 {
			n = len(s)
		}
		return s[:n], s[n:]
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:]
		case '\\':
			if i++; i == len(s) {
				return b.String(), ""
			}
		}
		b.WriteByte(s[i])
	}
	return b.String(), ""
}
