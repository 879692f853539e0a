package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"shocker.sh/lib/applet"
)

// Limits of what a registry may make us read or wait for.
const (
	maxRedirects = 10
	maxAnswer    = 8 << 20  // bytes, of anything but a blob
	maxError     = 64 << 10 // bytes, of the text of an error
	// minPart is what has to come, in bytes, before the time that nothing may
	// come begins anew: one byte a minute is as good as none.
	minPart = 1 << 10
)

// timeout is how long nothing may come, SHOCKER_TIMEOUT in seconds.
func timeout() time.Duration {
	if n, err := strconv.ParseFloat(os.Getenv("SHOCKER_TIMEOUT"), 64); err == nil && n > 0 {
		return time.Duration(n * float64(time.Second))
	}
	return 60 * time.Second
}

// newTransport makes a transport on which every wait has a limit.
func newTransport(limit time.Duration) *limited {
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
			ReadBufferSize:        64 << 10,
		},
	}
}

// loopback says whether a registry is on this machine, where there is nobody
// between: only there plain HTTP is spoken.
func loopback(host string) bool {
	name := (&url.URL{Host: host}).Hostname()
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.IsLoopback() || name == "localhost" || strings.HasSuffix(name, ".localhost")
}

// scheme finds out how a registry wants to be spoken to.
func scheme(ctx context.Context, t *limited, host string) (string, error) {
	if !loopback(host) {
		return "https", nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+"/v2/", nil)
	if err != nil {
		return "", err
	}
	resp, err := t.RoundTrip(req)
	var bad *tls.CertificateVerificationError
	switch {
	case err == nil:
		return "https", resp.Body.Close()
	case errors.As(err, &bad):
		return "https", nil // and the next request tells what is wrong
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case timedOut(err):
		return "", fmt.Errorf("registry %s: %w", host, err)
	}
	t.plain = true
	return "http", nil
}

func timedOut(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

type blobKey struct{}

// forBlob marks requests whose answer may be as long as a blob.
func forBlob(ctx context.Context) context.Context {
	return context.WithValue(ctx, blobKey{}, true)
}

// limited limits the length of answers, and the time between two parts.
type limited struct {
	limit time.Duration
	plain bool // HTTP without TLS is spoken too, on this machine
	inner http.RoundTripper
}

func (l *limited) RoundTrip(req *http.Request) (*http.Response, error) {
	// However it came to that: a redirect, a token server.
	if req.URL.Scheme != "https" && !(l.plain && loopback(req.URL.Host)) {
		return nil, fmt.Errorf("%w: %s", ErrPlain, req.URL.Host)
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	req = req.Clone(ctx)
	req.Header.Set("User-Agent", "shocker/"+applet.Version)
	resp, err := l.inner.RoundTrip(req)
	if err != nil {
		cancel(err)
		return nil, err
	}
	left := int64(maxAnswer)
	switch {
	case resp.StatusCode >= 400:
		left = maxError
	case ctx.Value(blobKey{}) != nil:
		left = -1
	}
	b := &body{ReadCloser: resp.Body, ctx: ctx, cancel: cancel, limit: l.limit, time: l.limit, left: left}
	b.timer = time.AfterFunc(l.limit, func() { cancel(ErrStalled) })
	b.timer.Stop()
	resp.Body = b
	return resp, nil
}

// body is an answer of which a part has to come in every time limit. What we
// do between two reads does not count.
type body struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	limit  time.Duration
	time   time.Duration // left for the rest of this part
	part   int           // bytes of it that have come
	left   int64         // bytes; -1: no limit
}

func (b *body) Read(p []byte) (int, error) {
	if b.left >= 0 && int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	began := time.Now()
	b.timer.Reset(b.time)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	b.time = max(b.time-time.Since(began), time.Millisecond)
	if b.part += n; b.part >= minPart {
		b.part, b.time = 0, b.limit
	}
	if b.left >= 0 {
		if b.left -= int64(n); b.left < 0 {
			return n, ErrTooLong
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
		return fmt.Errorf("%w: more than %d", ErrRedirect, maxRedirects)
	}
	if via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return fmt.Errorf("%w: from https to %s", ErrRedirect, req.URL.Scheme)
	}
	return nil
}

// withoutQuery takes out of an error what may be a secret: where blobs are
// elsewhere, the query is what gives access to them.
func withoutQuery(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		u.URL, _, _ = strings.Cut(u.URL, "?")
	}
	return err
}
