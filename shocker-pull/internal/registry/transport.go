package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"
)

// Limits of what a registry may make us read or wait for.
const (
	maxRedirects = 10
	maxAnswer    = 8 << 20  // bytes, of anything but a blob
	maxError     = 64 << 10 // bytes, of the text of an error
)

// timeout is how long nothing may come, SHOCKER_TIMEOUT in seconds.
func timeout() time.Duration {
	if n, err := strconv.ParseFloat(os.Getenv("SHOCKER_TIMEOUT"), 64); err == nil && n > 0 {
		return time.Duration(n * float64(time.Second))
	}
	return 60 * time.Second
}

// newTransport makes a transport on which every wait has a limit.
func newTransport(limit time.Duration) http.RoundTripper {
	dial := &net.Dialer{Timeout: min(limit, 30*time.Second), KeepAlive: 30 * time.Second}
	return &limited{
		limit: limit,
		inner: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           dial.DialContext,
			TLSHandshakeTimeout:   min(limit, 30*time.Second),
			ResponseHeaderTimeout: limit,
			MaxIdleConnsPerHost:   8,
			IdleConnTimeout:       90 * time.Second,
			ForceAttemptHTTP2:     true,
			DisableCompression:    true, // a blob is what its digest says
		},
	}
}

type blobKey struct{}

// forBlob marks requests whose answer may be as long as a blob.
func forBlob(ctx context.Context) context.Context {
	return context.WithValue(ctx, blobKey{}, true)
}

// limited limits the length of answers, and the time between two parts.
type limited struct {
	limit time.Duration
	inner http.RoundTripper
}

func (l *limited) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	resp, err := l.inner.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel(err)
		return nil, err
	}
	left := int64(maxAnswer)
	switch {
	case resp.StatusCode >= 400:
		left = maxError
	case req.Context().Value(blobKey{}) != nil:
		left = -1
	}
	b := &body{ReadCloser: resp.Body, ctx: ctx, cancel: cancel, limit: l.limit, left: left}
	b.timer = time.AfterFunc(l.limit, func() { cancel(ErrStalled) })
	resp.Body = b
	return resp, nil
}

type body struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	limit  time.Duration
	left   int64 // -1: no limit
}

func (b *body) Read(p []byte) (int, error) {
	b.timer.Reset(b.limit)
	if b.left >= 0 && int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	b.timer.Reset(b.limit)
	if b.left >= 0 {
		if b.left -= int64(n); b.left < 0 {
			return n, fmt.Errorf("%w", ErrTooLong)
		}
	}
	if err != nil && errors.Is(context.Cause(b.ctx), ErrStalled) {
		err = ErrStalled
	}
	return n, err
}

func (b *body) Close() error {
	b.timer.Stop()
	b.cancel(nil)
	return b.ReadCloser.Close()
}

// redirect follows a registry to where its blobs are, but not for ever and
// not from https to http.
func redirect(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	if via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return fmt.Errorf("redirect from https to %s refused", req.URL.Scheme)
	}
	return nil
}
