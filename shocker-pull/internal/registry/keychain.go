package registry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/name"
)

// authFiles are the places of containers-auth.json(5), and then Docker's. A
// file that REGISTRY_AUTH_FILE names is the only one.
func authFiles() []string {
	if path := os.Getenv("REGISTRY_AUTH_FILE"); path != "" {
		return []string{path}
	}
	home := os.Getenv("HOME")
	or := func(dir, other string) string {
		if dir == "" {
			return other
		}
		return dir
	}
	perUser := fmt.Sprintf("/run/containers/%d", os.Getuid())
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		perUser = filepath.Join(dir, "containers")
	}
	return []string{
		filepath.Join(perUser, "auth.json"),
		filepath.Join(or(os.Getenv("XDG_CONFIG_HOME"), filepath.Join(home, ".config")), "containers/auth.json"),
		filepath.Join(or(os.Getenv("DOCKER_CONFIG"), filepath.Join(home, ".docker")), "config.json"),
	}
}

// credentials looks up what docker login or podman login have stored for a
// repository, or for its whole registry. None is no error.
func credentials(ctx context.Context, repo name.Repository) (types.AuthConfig, error) {
	type answer struct {
		auth types.AuthConfig
		err  error
	}
	// A credential helper is a foreign program, and may ask somebody.
	ch := make(chan answer, 1)
	go func() {
		var a answer
		for _, path := range authFiles() {
			a.auth, a.err = inFile(path, repo)
			if a.err != nil || a.auth != (types.AuthConfig{}) {
				break
			}
		}
		ch <- a
	}()
	select {
	case a := <-ch:
		return a.auth, a.err
	case <-ctx.Done():
		return types.AuthConfig{}, context.Cause(ctx)
	}
}

func inFile(path string, repo name.Repository) (auth types.AuthConfig, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return auth, nil
	}
	if err != nil {
		return auth, err
	}
	defer f.Close()
	file, err := config.LoadFromReader(f)
	if err != nil {
		return auth, fmt.Errorf("%s: %w", path, err)
	}
	registry := repo.RegistryStr()
	hosts := []string{registry}
	if registry == name.DefaultRegistry {
		// Podman calls it docker.io, Docker by the address of its first version.
		registry = "docker.io"
		hosts = []string{registry, name.DefaultRegistry, "https://" + name.DefaultRegistry + "/v1/"}
	}
	// Podman's file also has logins for a part of a registry.
	for scope := registry + "/" + repo.RepositoryStr(); scope != registry; {
		if auth, ok := file.AuthConfigs[scope]; ok {
			return without(auth), nil
		}
		scope = scope[:strings.LastIndexByte(scope, '/')]
	}
	for _, host := range hosts {
		auth, err := stored(file, host)
		if err != nil {
			return auth, fmt.Errorf("%s: %w", path, err)
		}
		if auth != (types.AuthConfig{}) {
			return auth, nil
		}
	}
	return auth, nil
}

// stored asks the file, or the credential helper that it names for the host.
func stored(file *configfile.ConfigFile, host string) (types.AuthConfig, error) {
	if file.CredentialsStore == "" && file.CredentialHelpers[host] == "" {
		// Docker's look-up would also take a login for a part of the
		// registry, and reads docker.io as another name.
		for key, auth := range file.AuthConfigs {
			key = strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://"), "/")
			if key == strings.TrimSuffix(strings.TrimPrefix(host, "https://"), "/") {
				return without(auth), nil
			}
		}
		return types.AuthConfig{}, nil
	}
	auth, err := file.GetAuthConfig(host)
	return without(auth), err
}

// without drops what is no secret, so that an empty one can be told.
func without(auth types.AuthConfig) types.AuthConfig {
	auth.ServerAddress, auth.Auth = "", ""
	return auth
}
