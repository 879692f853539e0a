package pull

import (
	"context"
	"os"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/store"
	"shocker.sh/shocker-pull/internal/fetch"
	"shocker.sh/shocker-pull/internal/registry"
)

type reference = name.Reference

// ahead is how many layers are downloaded at once. They are unpacked one
// after the other, so more would only fill the disk earlier.
const ahead = 3

// layers fetches the layers, some at once, and emits them in their order.
// One that appears twice is fetched once.
func layers(ctx context.Context, st *store.Store, c *registry.Client, all []ispec.Descriptor, talk *os.File, emit func(ispec.Descriptor) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	bars := newBars(talk)
	defer bars.wait()
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel(nil)

	type result struct {
		done chan struct{}
		err  error
	}
	results := make(map[string]*result)
	slots := make(chan struct{}, ahead)
	order := make([]*result, len(all))
	for i, d := range all {
		key := d.Digest.String()
		if r, ok := results[key]; ok {
			order[i] = r
			continue
		}
		r := &result{done: make(chan struct{})}
		results[key], order[i] = r, r
		progress := bars.add(d)
		running.Go(func() {
			defer close(r.done)
			select {
			case slots <- struct{}{}:
				defer func() { <-slots }()
			case <-ctx.Done():
				r.err = context.Cause(ctx)
				return
			}
			r.err = fetch.Blob(ctx, st, c, d, progress)
		})
	}
	for i, d := range all {
		<-order[i].done
		if err := order[i].err; err != nil {
			cancel(err)
			return err
		}
		if err := emit(d); err != nil {
			return err
		}
	}
	return nil
}

// bars shows progress on a terminal, and nothing elsewhere.
type bars struct{ p *mpb.Progress }

func newBars(talk *os.File) *bars {
	if _, err := unix.IoctlGetTermios(int(talk.Fd()), unix.TCGETS); err != nil {
		return &bars{}
	}
	return &bars{mpb.New(mpb.WithOutput(talk), mpb.WithAutoRefresh())}
}

func (b *bars) add(d ispec.Descriptor) fetch.Progress {
	if b.p == nil {
		return func(int64) {}
	}
	bar := b.p.AddBar(d.Size,
		mpb.PrependDecorators(decor.Name(d.Digest.Encoded()[:12], decor.WCSyncSpaceR), decor.CountersKibiByte("% .1f / % .1f", decor.WCSyncSpace)),
		mpb.AppendDecorators(decor.Percentage(decor.WC{W: 5})),
		mpb.BarFillerClearOnAbort(),
	)
	return func(n int64) { bar.IncrInt64(n) }
}

func (b *bars) wait() {
	if b.p != nil {
		b.p.Shutdown()
	}
}
