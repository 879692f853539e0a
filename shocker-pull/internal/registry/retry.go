package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"strconv"
	"time"
)

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
		if err != nil && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil || try == tries || !Passing(err) {
			return err
		}
		var s *statusError
		if errors.As(err, &s) {
			delay = max(delay, s.after)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(min(delay, maxDelay)):
			delay *= 2
		}
	}
}

// Retry tries f as often as one request is tried.
func (c *Client) Retry(ctx context.Context, f func() error) error { return retry(ctx, f) }

// Passing says whether a failed request may succeed when it is tried again
// soon. One that has waited its time out already is not tried again.
func Passing(err error) bool {
	if code := status(err); code != 0 {
		return code == http.StatusTooManyRequests || code >= 500
	}
	for _, final := range []error{ErrStalled, ErrTooLong, ErrTooMuch, ErrDigest, ErrPlain, ErrRedirect, http.ErrSchemeMismatch} {
		if errors.Is(err, final) {
			return false
		}
	}
	var certificate *tls.CertificateVerificationError
	var dns *net.DNSError
	if errors.As(err, &certificate) || errors.As(err, &dns) && dns.IsNotFound || timedOut(err) {
		return false
	}
	var local *fs.PathError // a full disk, say
	return !errors.As(err, &local)
}

// status is the HTTP status that an error stands for, or 0.
func status(err error) int {
	var s *statusError
	if errors.As(err, &s) {
		return s.code
	}
	return 0
}

func retryAfter(header string) time.Duration {
	if n, err := strconv.Atoi(header); err == nil && n > 0 && n < 1e6 {
		return time.Duration(n) * time.Second
	}
	return 0
}

// hint adds what an error means to those who do not know them by heart.
func hint(err error) error {
	for _, known := range []error{ErrNotFound, ErrDenied} {
		if errors.Is(err, known) {
			return fmt.Errorf("%w (%w)", known, err)
		}
	}
	if errors.Is(err, http.ErrSchemeMismatch) {
		return fmt.Errorf("%w (%w)", ErrPlain, err)
	}
	return err
}
