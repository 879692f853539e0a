package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"shocker.sh/lib/record"
	"shocker.sh/lib/sys"
)

// maxConfig bounds what is read of a config, in bytes.
const maxConfig = 64 << 20

// readSpec reads a config, and returns its text as well. It is a file: another
// user may have made the bundle, and a FIFO would be waited for without end.
func readSpec(path string) (*specs.Spec, []byte, error) {
	f, err := sys.OpenRegularFile(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	text, err := readAll(f, path)
	if err != nil {
		return nil, nil, err
	}
	spec, err := record.Decode(text)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return spec, text, nil
}

// readJSON reads what the caller gives us, be it a file or a pipe. It waits for
// it, but no longer than until ctx is done.
func readJSON(ctx context.Context, path string, v any) error {
	return decode(ctx, path, v, func() (io.ReadCloser, error) { return os.Open(path) })
}

func decode(ctx context.Context, name string, v any, open func() (io.ReadCloser, error)) error {
	done := make(chan error, 1)
	var data []byte
	go func() {
		f, err := open()
		if err == nil {
			data, err = readAll(f, name)
			err = errors.Join(err, f.Close())
		}
		done <- err
	}()
	select {
	case <-ctx.Done(): // nothing is left of the reading when we exit
		return fmt.Errorf("read %s: %w", name, ctx.Err())
	case err := <-done:
		if err != nil {
			return err
		}
	}
	if err := record.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func readAll(r io.Reader, name string) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxConfig+1))
	if err == nil && len(data) > maxConfig {
		err = fmt.Errorf("%s is larger than %d MiB", name, maxConfig>>20)
	}
	return data, err
}

// bundleSpec reads the config of a bundle, and returns its text as well.
func bundleSpec(bundle string) (*specs.Spec, []byte, error) {
	path := filepath.Join(bundle, "config.json")
	spec, text, err := readSpec(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("JSON specification file %s not found: is %s a bundle? (%s spec makes one)", path, bundle, Name)
	}
	return spec, text, err
}
