package pull_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	digest "github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/btrfs"
	"shocker.sh/lib/testkit"
)

// nothing fails the test if a pull left an image, a layer or a temporary
// file; blobs may stay.
func nothing(t *testing.T, h *testkit.Host) {
	t.Helper()
	for _, dir := range []string{"images", "layers", "tmp"} {
		names, err := os.ReadDir(filepath.Join(h.Store, dir))
		if err != nil {
			t.Error(err)
		}
		for _, n := range names {
			t.Errorf("left behind: %s/%s", dir, n.Name())
		}
	}
}

func TestBadRegistry(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for what does not come")
	}
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		h.Must(t, "images") // makes the store
		setenv(t, "SHOCKER_TIMEOUT", "0.5")
		status := func(code int, text string) func(http.ResponseWriter, *http.Request) {
			return func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(code)
				fmt.Fprint(w, text)
			}
		}
		for _, test := range []struct {
			what string
			bend func(r *registry) func(http.ResponseWriter, *http.Request) bool
			want []string // in the line on stderr
		}{
			{"tag that is not there", func(*registry) func(http.ResponseWriter, *http.Request) bool {
				return forManifest(status(404, `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`))
			}, []string{"some/image", "404", "does not have it"}},
			{"denied", func(*registry) func(http.ResponseWriter, *http.Request) bool {
				return forManifest(status(401, ``))
			}, []string{"some/image", "denies access", "login"}},
			{"server error", func(*registry) func(http.ResponseWriter, *http.Request) bool {
				return forManifest(status(500, ``))
			}, []string{"some/image", "500"}},
			{"error that paints the terminal", func(*registry) func(http.ResponseWriter, *http.Request) bool {
				return forManifest(status(404, "{\"errors\":[{\"code\":\"X\",\"message\":\"\\u001b[31mred\\nCreated: img_1\"}]}"))
			}, []string{`\x1b[31mred\nCreated: img_1`}},
			{"endless error", func(*registry) func(http.ResponseWriter, *http.Request) bool {
				return forManifest(func(w http.ResponseWriter, r *http.Request) {
					w.WriteHeader(404)
					for r.Context().Err() == nil {
						if _, err := w.Write(make([]byte, 1<<20)); err != nil {
							return
						}
					}
				})
			}, []string{"404"}},
			{"endless manifest", func(*registry) func(http.ResponseWriter, *http.Request) bool {
				return forManifest(func(w http.ResponseWriter, r *http.Request) {
					for r.Context().Err() == nil {
						if _, err := w.Write(bytes.Repeat([]byte{' '}, 1<<20)); err != nil {
							return
						}
					}
				})
			}, []string{"too long"}},
			{"manifest that hangs", func(*registry) func(http.ResponseWriter, *http.Request) bool {
				return forManifest(hang)
			}, []string{"manifest 1", "timeout"}},
			{"registry that hangs", func(*registry) func(http.ResponseWriter, *http.Request) bool {
				return func(w http.ResponseWriter, r *http.Request) bool { hang(w, r); return true }
			}, []string{"timeout"}},
			{"blob that hangs in the middle", func(r *registry) func(http.ResponseWriter, *http.Request) bool {
				return forBlob(r.layers[1], func(w http.ResponseWriter, req *http.Request) {
					w.Write(r.blobs[r.layers[1].Digest][:100])
					w.(http.Flusher).Flush()
					hang(w, req)
				})
			}, []string{"blob sha256:", "stopped sending"}},
			{"blob with another content", func(r *registry) func(http.ResponseWriter, *http.Request) bool {
				return forBlob(r.layers[1], func(w http.ResponseWriter, _ *http.Request) {
					w.Write(make([]byte, r.layers[1].Size))
				})
			}, []string{"blob sha256:", "does not have its digest"}},
			{"blob that ends early", func(r *registry) func(http.ResponseWriter, *http.Request) bool {
				return forBlob(r.layers[1], func(w http.ResponseWriter, req *http.Request) {
					if req.Header.Get("Range") == "" {
						w.Write(r.blobs[r.layers[1].Digest][:1000])
						return
					}
					w.WriteHeader(http.StatusInternalServerError)
				})
			}, []string{"blob sha256:"}},
			{"blob that does not end", func(r *registry) func(http.ResponseWriter, *http.Request) bool {
				return forBlob(r.layers[1], func(w http.ResponseWriter, _ *http.Request) {
					w.Write(make([]byte, r.layers[1].Size+1))
				})
			}, []string{"blob sha256:", "more came"}},
			{"blob that is not there", func(r *registry) func(http.ResponseWriter, *http.Request) bool {
				return forBlob(r.layers[1], status(404, ``))
			}, []string{"blob sha256:", "404"}},
			{"redirects in a circle", func(r *registry) func(http.ResponseWriter, *http.Request) bool {
				return forBlob(r.layers[1], func(w http.ResponseWriter, req *http.Request) {
					http.Redirect(w, req, req.URL.Path, http.StatusTemporaryRedirect)
				})
			}, []string{"redirects"}},
			{"manifest of schema 1", func(*registry) func(http.ResponseWriter, *http.Request) bool {
				return forManifest(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws")
					fmt.Fprint(w, `{"schemaVersion":1}`)
				})
			}, []string{"not a manifest of an image", "schema 1"}},
			{"negative size", func(r *registry) func(http.ResponseWriter, *http.Request) bool {
				return forManifest(func(w http.ResponseWriter, _ *http.Request) {
					size := fmt.Sprintf(`"size":%d`, r.layers[0].Size)
					w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
					w.Write(bytes.Replace(r.manifest, []byte(size), []byte(`"size":-1`), 1))
				})
			}, []string{"not a manifest of an image", "-1 bytes"}},
			{"index for other machines", func(r *registry) func(http.ResponseWriter, *http.Request) bool {
				return forManifest(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
					fmt.Fprintf(w, `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":1,"platform":{"os":"plan9","architecture":"mips"}}]}`, r.layers[0].Digest)
				})
			}, []string{"no image for this platform", "plan9/mips"}},
			{"index in an index in an index", func(r *registry) func(http.ResponseWriter, *http.Request) bool {
				n := 0
				return forManifest(func(w http.ResponseWriter, _ *http.Request) {
					n++
					inner := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"digest":"sha256:%064d","size":1}]}`, n)
					fmt.Fprint(w, inner)
				})
			}, []string{"manifest"}},
		} {
			r := serve(t, "one", "two")
			r.bend = test.bend(r)
			began := time.Now()
			got := h.Shocker(t, "pull", r.ref())
			if got.Code != 1 || got.Stdout != "" {
				t.Errorf("%s: status %d, stdout %q; want 1 and nothing", test.what, got.Code, got.Stdout)
			}
			if strings.Count(got.Stderr, "\n") != 1 || len(got.Stderr) > 2000 {
				t.Errorf("%s: stderr is not one line: %.2000q", test.what, got.Stderr)
			}
			for _, want := range test.want {
				if !strings.Contains(got.Stderr, want) {
					t.Errorf("%s: %q; want %q in it", test.what, got.Stderr, want)
				}
			}
			if took := time.Since(began); took > testkit.Patience(15*time.Second) {
				t.Errorf("%s: took %v", test.what, took)
			}
			// The layer before the bad one may have been made: it is whole.
			h.Must(t, "gc")
			nothing(t, h)
			r.Close()
		}
	})
}

func TestNoRegistry(t *testing.T) {
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address := l.Addr().String()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		got := h.Shocker(t, "pull", address+"/x:1")
		if got.Code != 1 || !strings.Contains(got.Stderr, address) || !strings.Contains(got.Stderr, "refused") {
			t.Errorf("a registry that is down: status %d, %q", got.Code, got.Stderr)
		}
		nothing(t, h)
	})
}

// TestTooManyRequests: a wait of a day is not waited for.
func TestTooManyRequests(t *testing.T) {
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		r := serve(t, "one")
		n := 0
		r.bend = forManifest(func(w http.ResponseWriter, req *http.Request) {
			if n++; n > 1 {
				r.answer(w, req)
				return
			}
			w.Header().Set("Retry-After", "86400")
			w.WriteHeader(http.StatusTooManyRequests)
		})
		if out := h.Must(t, "pull", r.ref()); !strings.HasPrefix(out, "Created: img_") {
			t.Errorf("pull printed %q", out)
		}
	})
}

func TestResume(t *testing.T) {
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		setenv(t, "SHOCKER_TIMEOUT", "5")
		r := serve(t, "one", "two")
		cut := r.layers[1]
		// The first command gets a part and then nothing but errors.
		r.bend = forBlob(cut, func(w http.ResponseWriter, req *http.Request) {
			if req.Header.Get("Range") != "" {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			w.Header().Set("Content-Length", fmt.Sprint(cut.Size))
			w.Write(r.blobs[cut.Digest][:100_000])
		})
		if got := h.Shocker(t, "pull", r.ref()); got.Code != 1 {
			t.Fatalf("a pull of half a blob: %+v", got)
		}
		whole := filepath.Join(h.Store, "oci/blobs/sha256", r.layers[0].Digest.Encoded())
		if _, err := os.Stat(whole); err != nil {
			t.Errorf("the blob that came whole: %v", err)
		}
		if _, err := os.Stat(filepath.Join(h.Store, "oci/blobs/sha256", cut.Digest.Encoded())); err == nil {
			t.Error("the blob that was cut has its name")
		}
		r.bend = nil
		r.requests()
		h.Must(t, "pull", r.ref())
		asked := r.requests()
		want := fmt.Sprintf("/v2/some/image/blobs/%s bytes=100000-", cut.Digest)
		if !slices.Contains(asked, want) {
			t.Errorf("the second command asked for %q; want %q among it", asked, want)
		}
		for _, a := range asked {
			if strings.Contains(a, r.layers[0].Digest.String()) {
				t.Errorf("the blob that is there was asked for again: %s", a)
			}
		}
	})
}

// TestConnectionIsCut: within one command a cut connection is gone on with, and
// a registry without ranges begins again.
func TestConnectionIsCut(t *testing.T) {
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		for _, ranges := range []bool{true, false} {
			r := serve(t, fmt.Sprint("ranges ", ranges))
			cut := r.layers[0]
			n := 0
			r.bend = forBlob(cut, func(w http.ResponseWriter, req *http.Request) {
				if !ranges {
					req.Header.Del("Range")
				}
				if n++; n > 2 {
					r.answer(w, req)
					return
				}
				w.Header().Set("Content-Length", fmt.Sprint(cut.Size))
				w.Write(r.blobs[cut.Digest][:50_000])
				panic(http.ErrAbortHandler)
			})
			if ranges {
				r.bend = forBlob(cut, func(w http.ResponseWriter, req *http.Request) {
					if n++; n > 1 {
						r.answer(w, req)
						return
					}
					w.Header().Set("Content-Length", fmt.Sprint(cut.Size))
					w.Write(r.blobs[cut.Digest][:50_000])
					panic(http.ErrAbortHandler)
				})
			}
			h.Must(t, "pull", r.ref())
		}
	})
}

func TestExists(t *testing.T) {
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		r := serve(t, "one")
		id := strings.TrimPrefix(h.Must(t, "pull", r.ref()), "Created: ")
		if got := h.Must(t, "pull", r.ref()); got != "Exists: "+id {
			t.Errorf("the second pull printed %q; want the id %q", got, id)
		}
		byDigest := strings.TrimSuffix(r.ref(), ":1") + "@sha256:" + digestOf(t, h)
		r.Close() // a digest that is there needs no registry
		if got := h.Must(t, "pull", byDigest); got != "Exists: "+id {
			t.Errorf("a digest that is there: %q; want its id %q", got, id)
		}
		if got := h.Must(t, "rmi", byDigest); got != "Removed: "+id {
			t.Errorf("rmi by the digest: %q; want %q removed", got, id)
		}
	})
}

// digestOf reads the one manifest's digest from the layout.
func digestOf(t *testing.T, h *testkit.Host) string {
	t.Helper()
	got := h.Sh(t, `jq -r '.manifests[0].digest' "$SHOCKER_ROOT"/oci/index.json`)
	return strings.TrimPrefix(strings.TrimSpace(got.Stdout), "sha256:")
}

func TestTwoPullsAtOnce(t *testing.T) {
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		r := serve(t, "one", "two", "three")
		got := h.Sh(t, fmt.Sprintf("shocker pull %[1]s & a=$!; shocker pull %[1]s & wait $a; wait $!", r.ref()))
		if got.Code != 0 {
			t.Fatalf("two pulls at once: %+v", got)
		}
		if layers, err := os.ReadDir(filepath.Join(h.Store, "layers")); err != nil || len(layers) != 3 {
			t.Errorf("%d layers, %v; want 3", len(layers), err)
		}
		fetched := 0
		for _, a := range r.requests() {
			if strings.Contains(a, r.layers[0].Digest.String()) {
				fetched++
			}
		}
		if fetched != 1 {
			t.Errorf("the first layer was asked for %d times; want once", fetched)
		}
	})
}

func TestInterrupt(t *testing.T) {
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		h.Must(t, "images")
		for _, what := range []string{"/manifests/", "/blobs/"} {
			r := serve(t, "one")
			asked := make(chan bool, 100)
			r.bend = func(w http.ResponseWriter, req *http.Request) bool {
				if !strings.Contains(req.URL.Path, what) {
					return false
				}
				asked <- true
				hang(w, req)
				return true
			}
			cmd := exec.Command(filepath.Join(h.Bin(t), "shocker"), "pull", r.ref())
			var talk bytes.Buffer
			cmd.Stderr = &talk
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			<-asked
			began := time.Now()
			if err := cmd.Process.Signal(unix.SIGINT); err != nil {
				t.Fatal(err)
			}
			err := cmd.Wait()
			if cmd.ProcessState.ExitCode() != 130 || !strings.Contains(talk.String(), "interrupted") {
				t.Errorf("interrupted at %s: %v, %q; want status 130", what, err, talk.String())
			}
			if took := time.Since(began); took > testkit.Patience(2*time.Second) {
				t.Errorf("interrupted at %s: took %v to end", what, took)
			}
			nothing(t, h)
			r.Close()
		}
	})
}

// TestFetchAndUnpack: the two programs in a pipe do what pull does, and no
// image comes of descriptors that are not all, or not in order.
func TestFetchAndUnpack(t *testing.T) {
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		r := serve(t, "one", "two")
		t.Chdir(t.TempDir())
		got := h.Sh(t, fmt.Sprintf("shocker-pull --fetch %s | shocker-unpack; shocker images", r.ref()))
		if got.Code != 0 || !strings.Contains(got.Stdout, "\t"+r.ref()+"\n") {
			t.Fatalf("fetch | unpack: %+v", got)
		}
		h.Sh(t, "shocker rmi $(shocker images -q)")
		for _, edit := range []string{
			"head -n 3 descriptors", "sed 1d descriptors", "sed -n 1,2p descriptors; sed -n 4p descriptors; sed -n 3p descriptors",
			"cat descriptors; tail -n 1 descriptors", "echo nonsense", "true",
		} {
			h.Sh(t, "shocker-pull --fetch "+r.ref()+" >descriptors")
			got := h.Sh(t, "{ "+edit+"; } | shocker-unpack")
			if got.Code != 1 || got.Stdout != "" || strings.Count(got.Stderr, "\n") != 1 {
				t.Errorf("unpack of %q: %+v; want an error of one line", edit, got)
			}
			h.Must(t, "gc")
			nothing(t, h)
		}
	})
}

// TestOtherTools: the layout is one that others read.
func TestOtherTools(t *testing.T) {
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		testkit.Requires(t, "skopeo")
		r := serve(t, "one")
		setenv(t, "SHOCKER_REGISTRY", strings.TrimSuffix(r.ref(), "/some/image:1"))
		h.Must(t, "pull", "some/image", "1")
		got := h.Sh(t, `skopeo inspect --raw "oci:$SHOCKER_ROOT/oci:some/image:1"`)
		if got.Code != 0 || got.Stdout != string(r.manifest) {
			t.Errorf("skopeo inspect: %+v", got)
		}
	})
}

// TestDeletedByHand: what somebody has taken out of the store hinders nothing,
// and the next pull brings it back.
func TestDeletedByHand(t *testing.T) {
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		r := serve(t, "a", "b")
		id := strings.TrimPrefix(h.Must(t, "pull", r.ref()), "Created: ")
		layers, err := filepath.Glob(filepath.Join(h.Store, "layers", "*"))
		if err != nil || len(layers) != 2 {
			t.Fatalf("layers are %q, %v", layers, err)
		}
		for _, dir := range layers {
			if err := btrfs.Delete(dir); err != nil {
				t.Fatal(err)
			}
		}
		if got := h.Must(t, "pull", r.ref()); got != "Exists: "+id {
			t.Errorf("pull = %q; want %q", got, "Exists: "+id)
		}
		if now, err := filepath.Glob(filepath.Join(h.Store, "layers", "*")); err != nil || !slices.Equal(now, layers) {
			t.Errorf("layers are %q, %v; want %q again", now, err, layers)
		}
		manifest := strings.TrimPrefix(string(digest.FromBytes(r.manifest)), "sha256:")
		if err := os.Remove(filepath.Join(h.Store, "oci/blobs/sha256", manifest)); err != nil {
			t.Fatal(err)
		}
		h.Must(t, "gc")
		h.Must(t, "rmi", strings.TrimSpace(id))
		nothing(t, h)
	})
}

// TestDribble: a registry that hangs up after every byte does not hold us.
func TestDribble(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits between its tries")
	}
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		r := serve(t, "one")
		blob := r.blobs[r.layers[0].Digest]
		whole := 1 // bytes of an answer to a request without a range
		for what, ranges := range map[string]bool{"with ranges": true, "without": false} {
			r.bend = forBlob(r.layers[0], func(w http.ResponseWriter, req *http.Request) {
				from, to := 0, whole
				if fmt.Sscanf(req.Header.Get("Range"), "bytes=%d-", &from); ranges {
					to = from + 1
				} else {
					from = 0
				}
				w.Header().Set("Content-Length", fmt.Sprint(len(blob)-from))
				if from > 0 {
					w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(blob)-1, len(blob)))
					w.WriteHeader(http.StatusPartialContent)
				}
				w.Write(blob[from:to])
				whole++
			})
			r.requests()
			if got := h.Shocker(t, "pull", r.ref()); got.Code != 1 || !strings.Contains(got.Stderr, "unexpected EOF") {
				t.Errorf("%s: %+v; want 1", what, got)
			}
			if n := len(r.requests()); n > 10 {
				t.Errorf("%s: %d requests", what, n)
			}
		}
	})
}

// TestEndlessBlob: one that fills the store leaves room for others.
func TestEndlessBlob(t *testing.T) {
	if testing.Short() {
		t.Skip("it fills a file system")
	}
	testkit.Run(t, testkit.Options{StoreSize: 300 << 20}, func(t *testing.T, h *testkit.Host) {
		r := serve(t, "one")
		endless := r.layers[0].Digest
		r.layers[0].Size = 1 << 50
		r.setManifest(t, ispec.Image{RootFS: ispec.RootFS{DiffIDs: []digest.Digest{endless}}})
		r.bend = forBlob(r.layers[0], func(w http.ResponseWriter, req *http.Request) {
			for chunk := make([]byte, 1<<20); req.Context().Err() == nil; {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		})
		if got := h.Shocker(t, "pull", r.ref()); got.Code != 1 || !strings.Contains(got.Stderr, "no space left on device") {
			t.Errorf("%+v; want 1 and why", got)
		}
		partial(t, h)
		// btrfs frees what was deleted when it has committed that.
		testkit.Eventually(t, testkit.Patience(time.Minute), func() error {
			h.Sh(t, "btrfs filesystem sync "+h.Store)
			return os.WriteFile(filepath.Join(h.Store, "x"), make([]byte, 50<<20), 0o600)
		})
	})
}

// partial fails the test if there are other partial downloads than these.
func partial(t *testing.T, h *testkit.Host, want ...string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(h.Store, "partial", "*"))
	for i := range files {
		files[i] = filepath.Base(files[i])
	}
	if err != nil || !slices.Equal(files, want) {
		t.Errorf("partial downloads are %q, %v; want %q", files, err, want)
	}
}

// TestSweepPartial: gc removes what came of a pull that was cut, but not of
// one that goes on.
func TestSweepPartial(t *testing.T) {
	testkit.Run(t, testkit.Options{}, func(t *testing.T, h *testkit.Host) {
		setenv(t, "SHOCKER_TIMEOUT", "5") // gc has to come before it
		r := serve(t, "one")
		h.Must(t, "images")
		r.bend = forBlob(r.layers[0], func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
		h.Shocker(t, "pull", r.ref())
		partial(t, h) // nothing came
		r = serve(t, "two", "three")
		came := make(chan bool)
		r.bend = forBlob(r.layers[1], func(w http.ResponseWriter, req *http.Request) {
			w.Write(r.blobs[r.layers[1].Digest][:100_000])
			w.(http.Flusher).Flush()
			close(came)
			hang(w, req)
		})
		pulled := make(chan testkit.Result)
		go func() { pulled <- h.Shocker(t, "pull", r.ref()) }()
		<-came
		name := "sha256-" + r.layers[1].Digest.Encoded()
		testkit.Eventually(t, 4*time.Second, func() error {
			fi, err := os.Stat(filepath.Join(h.Store, "partial", name))
			if err == nil && fi.Size() == 0 {
				err = errors.New("nothing has come")
			}
			return err
		})
		h.Must(t, "gc")
		partial(t, h, name)
		if got := <-pulled; got.Code != 1 {
			t.Errorf("%+v; want 1", got)
		}
		partial(t, h, name)
		h.Must(t, "gc")
		partial(t, h)
	})
}
