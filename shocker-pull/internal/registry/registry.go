// Package registry is the client side of the OCI distribution spec, as far as
// a pull needs it. References, credentials and tokens are go-containerregistry's;
// requests are our own, as every answer has to have a limit.
package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	digest "github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Parse reads a reference: NAME, NAME:TAG, NAME@DIGEST, with or without a
// registry. SHOCKER_REGISTRY stands in the place of docker.io.
func Parse(ref string) (name.Reference, error) {
	var opts []name.Option
	if r := os.Getenv("SHOCKER_REGISTRY"); r != "" {
		opts = append(opts, name.WithDefaultRegistry(r))
	}
	parsed, err := name.ParseReference(ref, opts...)
	if err != nil {
		return nil, fmt.Errorf("reference %q: %w", ref, err)
	}
	return parsed, nil
}

// Client fetches from one repository.
type Client struct {
	ref    name.Reference
	http   *http.Client
	scheme string
}

// Open makes a client for the reference's repository; it asks the registry
// how it wants to be spoken to.
func Open(ctx context.Context, ref name.Reference) (*Client, error) {
	registry := ref.Context().Registry
	auth, err := authn.Resolve(ctx, authn.DefaultKeychain, registry)
	if err != nil {
		return nil, fmt.Errorf("credentials for %s: %w", registry, err)
	}
	limit := timeout()
	var rt http.RoundTripper
	err = retry(ctx, func() error {
		ctx, cancel := context.WithTimeout(ctx, 2*limit)
		defer cancel()
		var err error
		rt, err = transport.NewWithContext(ctx, registry, auth, newTransport(limit), []string{ref.Scope(transport.PullScope)})
		var te *transport.Error
		if errors.As(err, &te) {
			return &statusError{code: te.StatusCode, text: te.Error()}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("registry %s: %w", registry, err)
	}
	return &Client{ref: ref, http: &http.Client{Transport: rt, CheckRedirect: redirect}, scheme: registry.Scheme()}, nil
}

// url is a resource of the repository. The transport corrects the scheme.
func (c *Client) url(kind, id string) string {
	repo := c.ref.Context()
	return fmt.Sprintf("%s://%s/v2/%s/%s/%s", c.scheme, repo.RegistryStr(), repo.RepositoryStr(), kind, id)
}

// get asks once for something, from offset on.
func (c *Client) get(ctx context.Context, url string, accept []string, offset int64) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
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
		return nil, err
	}
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent && offset > 0 {
		return resp, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body) // as much as there is; it only explains
	return nil, &statusError{
		code: resp.StatusCode, text: explain(text),
		after: retryAfter(resp.Header.Get("Retry-After")),
	}
}

// statusError is an answer other than the one asked for.
type statusError struct {
	code  int
	text  string
	after time.Duration
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

func retryAfter(header string) time.Duration {
	if n, err := strconv.Atoi(header); err == nil && n > 0 {
		return time.Duration(n) * time.Second
	}
	return 0
}

// Tries of one request, and the waits between them. A registry that asks for
// a longer wait gets the longest.
const (
	tries    = 4
	maxDelay = 5 * time.Second
)

// retry calls f until it succeeds, fails for good, or has been tried often
// enough.
func retry(ctx context.Context, f func() error) error {
	delay := 200 * time.Millisecond
	for try := 1; ; try++ {
		err := f()
		var status *statusError
		again := err != nil && ctx.Err() == nil && try < tries
		if errors.As(err, &status) {
			again = again && (status.code == http.StatusTooManyRequests || status.code >= 500)
			delay = max(delay, status.after)
		} else if errors.Is(err, ErrTooLong) || errors.Is(err, ErrTooMuch) || errors.Is(err, ErrDigest) || errors.Is(err, ErrStalled) {
			again = false
		}
		if !again {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(min(delay, maxDelay)):
			delay *= 2
		}
	}
}

// fetch reads a small document whole and checks its digest.
func (c *Client) fetch(ctx context.Context, kind, id string, accept []string, want digest.Digest) ([]byte, string, error) {
	var data []byte
	var mediaType string
	err := retry(ctx, func() error {
		resp, err := c.get(ctx, c.url(kind, id), accept, 0)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		data, err = io.ReadAll(resp.Body)
		mediaType, _, _ = strings.Cut(resp.Header.Get("Content-Type"), ";")
		return err
	})
	if err == nil && want != "" && want.Algorithm().FromBytes(data) != want {
		err = ErrDigest
	}
	if err != nil {
		return nil, "", fmt.Errorf("%s %s of %s: %w", strings.TrimSuffix(kind, "s"), id, c.ref.Context(), hint(err))
	}
	return data, mediaType, nil
}

// hint adds what a status means to those who do not know them by heart.
func hint(err error) error {
	for _, known := range []error{ErrNotFound, ErrDenied} {
		if errors.Is(err, known) {
			return fmt.Errorf("%w (%w)", known, err)
		}
	}
	return err
}

// Blob asks for a blob from offset on. It returns where the answer begins: a
// registry without ranges begins at 0.
func (c *Client) Blob(ctx context.Context, d ispec.Descriptor, offset int64) (io.ReadCloser, int64, error) {
	resp, err := c.get(forBlob(ctx), c.url("blobs", d.Digest.String()), nil, offset)
	var status *statusError
	if errors.As(err, &status) && status.code == http.StatusRequestedRangeNotSatisfiable {
		resp, err = c.get(forBlob(ctx), c.url("blobs", d.Digest.String()), nil, 0)
	}
	if err != nil {
		return nil, 0, err
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

// Retry tries f as often as one request is tried.
func (c *Client) Retry(ctx context.Context, f func() error) error { return retry(ctx, f) }

// Repository is the repository's full name.
func (c *Client) Repository() string { return c.ref.Context().String() }
