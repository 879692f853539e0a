// Package registry is the client side of the OCI distribution spec, as far as
// a pull needs it. References are read by go-containerregistry, credentials by
// Docker's own package; requests are our own, as every answer and every wait
// has to have a limit.
package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	digest "github.com/opencontainers/go-digest"
)

// Reference names an image in a registry.
type Reference = name.Reference

// Parse reads a reference: NAME, NAME:TAG, NAME@DIGEST, with or without a
// registry. SHOCKER_REGISTRY stands in the place of docker.io.
func Parse(ref string) (Reference, error) {
	var opts []name.Option
	if r := os.Getenv("SHOCKER_REGISTRY"); r != "" {
		opts = append(opts, name.WithDefaultRegistry(r))
	}
	parsed, err := name.ParseReference(ref, opts...)
	if err != nil {
		// Its error only says the reference once more.
		return nil, fmt.Errorf("%q is %w: want [REGISTRY/]NAME[:TAG] or NAME@DIGEST, and NAME in lower case", ref, ErrReference)
	}
	return parsed, nil
}

// Client fetches from one repository.
type Client struct {
	ref  Reference
	http *http.Client
	base string // URL of the repository
}

// Open makes a client for the reference's repository.
func Open(ctx context.Context, ref Reference) (*Client, error) {
	repo := ref.Context()
	creds, err := credentials(ctx, repo)
	if err != nil {
		return nil, fmt.Errorf("credentials for %s: %w", repo.RegistryStr(), err)
	}
	t := newTransport(timeout())
	scheme, err := scheme(ctx, t, repo.RegistryStr())
	if err != nil {
		return nil, err
	}
	home := scheme + "://" + repo.RegistryStr()
	return &Client{
		ref:  ref,
		base: home + "/v2/" + repo.RepositoryStr(),
		http: &http.Client{
			Transport: &authorizer{
				inner:   t,
				home:    home,
				scope:   "repository:" + repo.RepositoryStr() + ":pull",
				creds:   creds,
				headers: make(map[string]string),
			},
			CheckRedirect: redirect,
		},
	}, nil
}

// Repository is the repository's full name.
func (c *Client) Repository() string { return c.ref.Context().String() }

// get asks once for something, from offset on.
func (c *Client) get(ctx context.Context, kind, id string, accept []string, offset int64) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/"+kind+"/"+id, nil)
	if err != nil {
		return nil, err
	}
	if len(accept) > 0 {
		req.Header.Set("Accept", strings.Join(accept, ", "))
	}
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, withoutQuery(err)
	}
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent && offset > 0 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, newStatusError(resp)
}

// statusError is an answer other than the one asked for.
type statusError struct {
	code  int
	text  string
	after time.Duration
}

func newStatusError(resp *http.Response) error {
	text, _ := io.ReadAll(resp.Body) // as much as there is; it only explains
	return &statusError{
		code: resp.StatusCode, text: explain(text),
		after: retryAfter(resp.Header.Get("Retry-After")),
	}
}

func (e *statusError) Error() string {
	s := "HTTP status " + strconv.Itoa(e.code)
	if t := http.StatusText(e.code); t != "" {
		s += " (" + t + ")"
	}
	if e.text != "" {
		s += ": " + e.text
	}
	return s
}

func (e *statusError) Is(target error) bool {
	switch e.code {
	case http.StatusNotFound:
		return target == ErrNotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		return target == ErrDenied
	}
	return false
}

// explain takes the messages out of an error of the distribution spec.
func explain(text []byte) string {
	var e struct {
		Errors []struct{ Code, Message string } `json:"errors"`
	}
	if json.Unmarshal(text, &e) != nil {
		return ""
	}
	var all []string
	for _, one := range e.Errors[:min(len(e.Errors), 3)] {
		all = append(all, strings.TrimSpace(one.Code+" "+one.Message))
	}
	s := strings.Join(all, "; ")
	return s[:min(len(s), 512)]
}

// fetch reads a small document whole and checks its digest, and its size
// unless that is -1.
func (c *Client) fetch(ctx context.Context, kind, id string, accept []string, want digest.Digest, size int64) ([]byte, string, error) {
	var data []byte
	var mediaType string
	err := retry(ctx, func() error {
		resp, err := c.get(ctx, kind, id, accept, 0)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		data, err = io.ReadAll(resp.Body)
		mediaType, _, _ = strings.Cut(resp.Header.Get("Content-Type"), ";")
		return err
	})
	switch {
	case err != nil:
	case want != "" && want.Algorithm().FromBytes(data) != want:
		err = fmt.Errorf("%w: what came has %s", ErrDigest, want.Algorithm().FromBytes(data))
	case size >= 0 && size != int64(len(data)):
		err = fmt.Errorf("%w: it has %d bytes, not %d", ErrSize, len(data), size)
	}
	if err != nil {
		return nil, "", fmt.Errorf("%s %s of %s: %w", strings.TrimSuffix(kind, "s"), id, c.Repository(), hint(err))
	}
	return data, mediaType, nil
}

// Blob asks once for a blob from offset on. It returns where the answer
// begins: a registry without ranges begins at 0.
func (c *Client) Blob(ctx context.Context, d digest.Digest, offset int64) (io.ReadCloser, int64, error) {
	resp, err := c.get(forBlob(ctx), "blobs", d.String(), nil, offset)
	if status(err) == http.StatusRequestedRangeNotSatisfiable {
		resp, err = c.get(forBlob(ctx), "blobs", d.String(), nil, 0)
	}
	if err != nil {
		return nil, 0, hint(err)
	}
	if resp.StatusCode != http.StatusPartialContent {
		return resp.Body, 0, nil
	}
	if want := fmt.Sprintf("bytes %d-", offset); !strings.HasPrefix(resp.Header.Get("Content-Range"), want) {
		resp.Body.Close()
		return nil, 0, fmt.Errorf("asked for bytes from %d, got %q", offset, resp.Header.Get("Content-Range"))
	}
	return resp.Body, offset, nil
}
