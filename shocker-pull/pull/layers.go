package pull

import (
	"context"
	"os"
	"sync"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/sys/unix"

	"shocker.sh/lib/store"
	"shocker.sh/shocker-pull/internal/fetch"
	"shocker.sh/shocker-pull/internal/registry"
	"shocker.sh/shocker-pull/unpack"
)

// ahead is how many layers are downloaded at once. They are unpacked one
// after the other, so more would only fill the disk earlier.
const ahead = 3

// layers fetches the layers, some at once, and emits them in their order: if
// early is asked for at once, to be read as they come, else each once it is
// whole. It returns when all are. One that appears twice is fetched once.
func layers(ctx context.Context, st *store.Store, c *registry.Client, all []ispec.Descriptor, early bool, talk *os.File, emit func(unpack.Blob) error) (retErr error) {
	ctx, cancel := context.WithCancelCause(ctx)
	bars := newBars(talk)
	defer func() { bars.end(retErr == nil) }()
	var running sync.WaitGroup
	defer running.Wait()
	defer func() { cancel(retErr) }()

	downloads := make(map[string]*fetch.Download)
	var queue []func()
	for _, d := range all {
		key := d.Digest.String()
		if downloads[key] != nil {
			continue
		}
		dl := fetch.NewDownload(st, d)
		downloads[key] = dl
		progress := bars.add(d)
		queue = append(queue, func() { dl.Run(ctx, c, progress) })
	}
	running.Go(func() { inOrder(queue, &running) })
	send := func(d ispec.Descriptor) error {
		b := unpack.Blob{Descriptor: d}
		dl := downloads[d.Digest.String()]
		if !early {
			if err := dl.Wait(); err != nil {
				return err
			}
		} else if !dl.Whole() {
			b.Open = dl.Open
		}
		return emit(b)
	}
	for _, d := range all {
		if err := send(d); err != nil {
			return err
		}
	}
	for _, d := range all {
		if err := downloads[d.Digest.String()].Wait(); err != nil {
			return err
		}
	}
	return nil
}

// inOrder starts the downloads, the first ones first.
func inOrder(queue []func(), running *sync.WaitGroup) {
	slots := make(chan struct{}, ahead)
	for _, run := range queue {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			run()
		})
	}
}

// bars shows progress on a terminal, and nothing elsewhere.
type bars struct {
	p   *mpb.Progress
	all []*mpb.Bar
}

func newBars(talk *os.File) *bars {
	if _, err := unix.IoctlGetTermios(int(talk.Fd()), unix.TCGETS); err != nil {
		return &bars{}
	}
	return &bars{p: mpb.New(mpb.WithOutput(talk), mpb.WithAutoRefresh())}
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
	b.all = append(b.all, bar)
	return func(n int64) { bar.IncrInt64(n) }
}

// end leaves the bars as they are; of a success all are full.
func (b *bars) end(success bool) {
	switch {
	case b.p == nil:
	case success:
		for _, bar := range b.all {
			bar.SetTotal(-1, true) // an empty blob would never be complete
		}
		b.p.Wait()
	default:
		b.p.Shutdown()
	}
}
