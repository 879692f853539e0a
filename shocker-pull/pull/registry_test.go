package pull_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// registry is one that a test bends: it serves one image, and asks bend first
// for every request.
type registry struct {
	*httptest.Server
	blobs    map[digest.Digest][]byte
	manifest []byte
	layers   []ispec.Descriptor

	mu   sync.Mutex
	bend func(w http.ResponseWriter, r *http.Request) bool // true: it has answered
	log  []string
}

// serve starts a registry whose image has one layer for each of the files.
func serve(t *testing.T, files ...string) *registry {
	t.Helper()
	r := &registry{blobs: make(map[digest.Digest][]byte)}
	config := ispec.Image{Platform: ispec.Platform{OS: "linux", Architecture: runtime.GOARCH}}
	for _, f := range files {
		plain, packed := layer(t, f)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(plain))
		r.layers = append(r.layers, r.put(ispec.MediaTypeImageLayerGzip, packed))
	}
	config.RootFS.Type = "layers"
	r.setManifest(t, config)
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *registry) put(mediaType string, data []byte) ispec.Descriptor {
	d := digest.FromBytes(data)
	r.blobs[d] = data
	return ispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

func (r *registry) setManifest(t *testing.T, config ispec.Image) {
	t.Helper()
	r.manifest = encode(t, ispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ispec.MediaTypeImageManifest,
		Config:    r.put(ispec.MediaTypeImageConfig, encode(t, config)),
		Layers:    r.layers,
	})
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// layer is a tar with one file, and the same packed. The content does not
// shrink, so that a blob can be cut anywhere.
func layer(t *testing.T, name string) (plain, packed []byte) {
	t.Helper()
	var b, z bytes.Buffer
	w := tar.NewWriter(&b)
	content := make([]byte, 300_000)
	x := uint64(len(name)) + 88172645463325252
	for i := range content {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		content[i] = byte(x)
	}
	err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))})
	if err == nil {
		_, err = w.Write(content)
	}
	if err == nil {
		err = w.Close()
	}
	zw := gzip.NewWriter(&z)
	if err == nil {
		_, err = zw.Write(b.Bytes())
	}
	if err == nil {
		err = zw.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), z.Bytes()
}

// ref names the image.
func (r *registry) ref() string { return strings.TrimPrefix(r.URL, "http://") + "/some/image:1" }

// requests returns and forgets what was asked for.
func (r *registry) requests() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	log := r.log
	r.log = nil
	return log
}

func (r *registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	bend := r.bend
	r.log = append(r.log, strings.TrimSpace(req.URL.Path+" "+req.Header.Get("Range")))
	r.mu.Unlock()
	if bend != nil && bend(w, req) {
		return
	}
	r.answer(w, req)
}

func (r *registry) answer(w http.ResponseWriter, req *http.Request) {
	_, id, _ := strings.Cut(req.URL.Path, "/manifests/")
	_, blob, _ := strings.Cut(req.URL.Path, "/blobs/")
	data, there := r.blobs[digest.Digest(blob)]
	switch {
	case req.URL.Path == "/v2/":
	case id == "1" || id == digest.FromBytes(r.manifest).String():
		w.Header().Set("Content-Type", ispec.MediaTypeImageManifest)
		w.Write(r.manifest)
	case there:
		http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(data))
	default:
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"it is not here"}]}`)
	}
}

// forBlob bends the requests for one blob.
func forBlob(d ispec.Descriptor, f func(w http.ResponseWriter, r *http.Request)) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, d.Digest.String()) {
			return false
		}
		f(w, r)
		return true
	}
}

// forManifest bends the requests for the manifest.
func forManifest(f func(w http.ResponseWriter, r *http.Request)) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/manifests/") {
			return false
		}
		f(w, r)
		return true
	}
}

// hang answers nothing until the client has gone.
func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

func setenv(t *testing.T, name, value string) {
	t.Helper()
	if err := os.Setenv(name, value); err != nil {
		t.Fatal(err)
	}
}
