package registry

import "errors"

var (
	// ErrReference is what cannot name an image in a registry.
	ErrReference = errors.New("not the name of an image")
	// ErrNotFound is a reference or blob that the registry does not have.
	ErrNotFound = errors.New("the registry does not have it")
	// ErrDenied is what the registry does not give us.
	ErrDenied = errors.New("the registry denies access: log in with docker login or podman login, or check the name")
	// ErrStalled is a registry that sends nothing any more.
	ErrStalled = errors.New("the registry stopped sending")
	// ErrTooLong is an answer longer than it may be.
	ErrTooLong = errors.New("the registry's answer is too long")
	// ErrTooMuch is a blob that is longer than its manifest says.
	ErrTooMuch = errors.New("more came than the manifest says")
	// ErrPlatform is an image that this machine cannot run.
	ErrPlatform = errors.New("no image for this platform")
	// ErrManifest is a manifest that is not one of an image.
	ErrManifest = errors.New("not a manifest of an image")
	// ErrDigest is content that is not what its digest says.
	ErrDigest = errors.New("the content does not have its digest")
	// ErrSize is content of another size than its descriptor says.
	ErrSize = errors.New("the content does not have its size")
	// ErrPlain is a request that would go over a network unencrypted.
	ErrPlain = errors.New("plain http is only spoken to a registry on this machine")
	// ErrRedirect is a redirect that is not followed.
	ErrRedirect = errors.New("the registry's redirects are refused")
)
