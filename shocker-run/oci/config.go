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
)

// maxConfig bounds what is read of a config, in bytes.
const maxConfig = 64 << 20

func readSpec(path string) (*specs.Spec, error) {
	spec := &specs.Spec{}
	if err := readJSON(path, spec); err != nil {
		return nil, err
	}
	return spec, nil
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
	data, err := io.ReadAll(io.LimitReader(r, maxConfig+1))
	if err != nil {
		return err
	}
	if len(data) > maxConfig {
		return fmt.Errorf("%s is larger than %d MiB", name, maxConfig>>20)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// bundleSpec reads the config of a bundle.
func bundleSpec(bundle string) (*specs.Spec, error) {
	path := filepath.Join(bundle, "config.json")
	spec, err := readSpec(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("JSON specification file %s not found: is %s a bundle? (%s spec makes one)", path, bundle, Name)
	}
	return spec, err
}
