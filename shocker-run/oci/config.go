package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"shocker.sh/lib/record"
)

// maxConfig bounds what is read of a config, in bytes.
const maxConfig = 64 << 20

// readSpec reads a config, and returns its text as well.
func readSpec(path string) (*specs.Spec, []byte, error) {
	f, err := os.Open(path)
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

func readJSON(path string, v any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return decode(f, path, v)
}

func decode(r io.Reader, name string, v any) error {
	data, err := readAll(r, name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
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
