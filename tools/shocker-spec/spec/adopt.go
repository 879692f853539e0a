package spec

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"shocker.sh/lib/applet"
	"shocker.sh/lib/record"
	"shocker.sh/lib/stage"
	"shocker.sh/lib/store"
)

// adoptAll makes a record of every config on the input. A config that is
// wrong is reported and stops no other.
func adoptAll(ctx context.Context, host stage.Host, st *store.Store, streams applet.IO) error {
	release, err := host.HoldRun()
	if err != nil {
		return err
	}
	defer release()
	failed := false
	configs := record.NewReader(streams.In)
	for ctx.Err() == nil {
		text, err := configs.NextText()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = adopt(host, st, text, streams)
		} else if !errors.Is(err, record.ErrInvalid) {
			return err
		}
		if err != nil {
			failed = true
			fmt.Fprintf(streams.Err, "%s: %s\n", Name, applet.Escape(err.Error()))
		}
	}
	if failed {
		return stage.ErrRecords
	}
	return ctx.Err()
}

// adopt makes a container of a config: it gets an id, unless it has one, and
// the hook that cleans up. Everything else stays as it is.
func adopt(host stage.Host, st *store.Store, config []byte, streams applet.IO) (retErr error) {
	var head struct {
		Annotations map[string]string `json:"annotations"`
		Hooks       specs.Hooks       `json:"hooks"`
	}
	if err := json.Unmarshal(config, &head); err != nil {
		return fmt.Errorf("adopt: %w: %w", record.ErrInvalid, err)
	}
	t := &taking{host: host, store: st, by: Name}
	defer func() {
		if retErr != nil {
			retErr = errors.Join(retErr, t.undo())
		}
	}()
	take := func(id string) error {
		return t.take(id, func(id string) (*record.Record, error) {
			r, err := record.Adopt(config, id)
			if err != nil {
				return nil, err
			}
			hooks := &specs.Spec{Hooks: &specs.Hooks{Poststop: head.Hooks.Poststop}}
			if err := setPoststop(hooks, host.RunDir(id)); err != nil {
				return nil, err
			}
			return r, r.Set(hooks.Hooks.Poststop, "hooks", "poststop")
		})
	}
	var err error
	if id := head.Annotations[record.AnnotationID]; id != "" {
		err = take(id)
	} else {
		_, err = st.NewContainer(take)
	}
	if err != nil {
		return fmt.Errorf("adopt: %w", err)
	}
	return passOn(host, streams, t.record, t.busy)
}
