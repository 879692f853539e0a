package testkit

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

const registryAddress = "127.0.0.1:5000"

// Registry starts a registry without TLS or users on the host's loopback and
// returns its address. Its storage is Dir/registry, its log Dir/registry.log.
func (h *Host) Registry(t testing.TB) string {
	t.Helper()
	Requires(t, "docker-registry")
	address, err := h.registry()
	if err != nil {
		t.Fatalf("start docker-registry: %v", err)
	}
	return address
}

func (h *Host) startRegistry() (string, error) {
	path := filepath.Join(h.Dir, "registry")
	config := fmt.Sprintf("version: 0.1\nlog: {level: warn}\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\nhttp: {addr: %q}\n", path, registryAddress)
	if err := os.WriteFile(path+".yml", []byte(config), 0o644); err != nil {
		return "", err
	}
	log, err := os.Create(path + ".log")
	if err != nil {
		return "", err
	}
	defer log.Close()
	cmd := exec.Command("docker-registry", "serve", path+".yml")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return "", err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	err = eventually(20*time.Second, func() error {
		select {
		case err := <-ended:
			ended <- err
			text, _ := os.ReadFile(log.Name())
			return fmt.Errorf("it ended: %v: %s", err, text)
		default:
		}
		c, err := net.Dial("tcp", registryAddress)
		if err != nil {
			return err
		}
		return c.Close()
	})
	return registryAddress, err
}
