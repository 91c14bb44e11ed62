package postgres

import (
	"os/exec"
	"strings"
)

// runVersion asks a server binary for its version; it reads nothing and writes nothing.
func runVersion(postgres string) (string, error) {
	out, err := exec.Command(postgres, "--version").Output()
	return strings.TrimSpace(string(out)), err
}
