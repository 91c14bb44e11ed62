package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"filippo.io/age"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/host"
	"github.com/toolboxai/relight/repo"
)

// GenerateIdentity writes a new recovery identity to path, which must not exist, and gives its public recipient.
func GenerateIdentity(path string, postQuantum bool) (recipient string, err error) {
	if _, err := os.Lstat(path); err == nil {
		return "", &relight.Error{Op: "generate key", Subject: path, Code: relight.CodeUsage, Err: os.ErrExist,
			Hint: "choose another name; a recovery key is never overwritten"}
	}
	secret, recipient, err := newIdentity(postQuantum)
	if err != nil {
		return "", fmt.Errorf("generate key: %w", err)
	}
	text := fmt.Sprintf("# relight recovery identity: keep it offline, in two places\n# public: %s\n%s\n", recipient, secret)
	if err := host.WriteFileDurable(path, []byte(text), 0o600); err != nil {
		return "", &relight.Error{Op: "generate key", Err: err, Hint: "name a file in a directory that exists and may be written, best on a medium that is kept offline"}
	}
	return recipient, nil
}

func newIdentity(postQuantum bool) (secret, recipient string, err error) {
	if postQuantum {
		id, err := age.GenerateHybridIdentity()
		if err != nil {
			return "", "", err
		}
		return id.String(), id.Recipient().String(), nil
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return "", "", err
	}
	return id.String(), id.Recipient().String(), nil
}

// RecoverySide opens a repository with the recovery identities: the side that may enrol hosts and change recipients.
func (a *App) RecoverySide(ctx context.Context, s blob.Storage) (*repo.Meta, error) {
	ids, err := a.Identities()
	if err != nil {
		return nil, err
	}
	if len(ids) == 0 {
		return nil, &relight.Error{Op: "open repository", Subject: s.String(), Code: relight.CodeUsage, Err: errors.New("this needs the recovery key"),
			Hint: "give it with --identity FILE"}
	}
	k, err := repo.Unlock(ctx, s, ids...)
	if err != nil {
		return nil, err
	}
	return repo.Open(ctx, s, k, repo.Options{Now: a.o.Now, Log: a.o.Log, Rand: rand.Reader})
}

// WriteCredential keeps a host's credential where the estate looks for it.
func WriteCredential(c *repo.Credential, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("keep credential: %w", err)
	}
	return c.Write(path)
}

// RepositoryURL is the address of an estate's repository and the file with this host's credential for it.
func (a *App) RepositoryURL(name string) (url, credential string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, r, err := a.findRepository(name)
	return r.URL, r.Credential, err
}
