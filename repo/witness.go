package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
)

// A witness says that an object was stored which no other object names, so that its deletion is noticed. It is created after the object and deleted before it;
// that of a manifest is created before, while its backup is registered. docs/format.md says which objects have one, and what follows from this order.

const (
	witnessKind   = "witness"
	witnessPrefix = "witness/"
	// witnessLate is how long after an object its witness comes without a doubt: whoever slept for longer looks whether the object is still there.
	witnessLate = time.Minute
)

func witnessName(name string) string { return witnessPrefix + name }

// witnessed says whether objects like this one have a witness.
func witnessed(name string) bool {
	switch kindOf(name) {
	case "epoch", "recipient", "host", "revocation", "tested", manifestKind, "proof", checkedKind, damagedKind, setKind, "estate", "cluster", "coverage", "anchor", "fence", "index":
		return true
	case "trash":
		return !strings.Contains(name, "/marks.") // the seal counts them
	}
	return false
}

// witness creates the witness of an object that was stored since a moment. Without one the object counts all the same, so that it fails is no error.
func (m *Meta) witness(ctx context.Context, name string, since time.Time) {
	if !witnessed(name) {
		return
	}
	err := putWitness(ctx, m.storage, m.keys, name, m.now())
	if err == nil && m.now().Sub(since) >= witnessLate {
		err = m.takeBack(ctx, name)
	}
	if err != nil {
		m.log.WarnContext(ctx, "an object has no witness: its deletion would go unnoticed", "repository", m.name, "object", name, "err", err)
	}
}

// takeBack deletes the witness of an object that has gone its way before the witness came.
func (m *Meta) takeBack(ctx context.Context, name string) error {
	there, err := m.exists(ctx, name)
	if err != nil || there {
		return err
	}
	return m.storage.Delete(ctx, witnessName(name))
}

// putWitness creates a witness, unless it is there.
func putWitness(ctx context.Context, s blob.Storage, k *Keyring, name string, now time.Time) error {
	name = witnessName(name)
	b, err := k.sign(witnessKind, name, now, struct{}{})
	if err != nil {
		return err
	}
	body, err := k.sealBytes(b, sealOf(name))
	if err != nil {
		return fmt.Errorf("seal %s: %w", name, err)
	}
	if err := s.Put(ctx, name, bytes.NewReader(body), blob.PutOptions{}); err != nil && !errors.Is(err, blob.ErrExists) {
		return fmt.Errorf("put %s: %w", name, err)
	}
	return nil
}

// remove deletes an object, and its witness before it.
func (m *Meta) remove(ctx context.Context, name string) error {
	if witnessed(name) {
		if err := m.storage.Delete(ctx, witnessName(name)); err != nil {
			return err
		}
	}
	return m.storage.Delete(ctx, name)
}

func (m *Meta) exists(ctx context.Context, name string) (bool, error) {
	_, err := m.storage.Stat(ctx, name)
	if errors.Is(err, blob.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for %s: %w", name, err)
	}
	return true, nil
}

// deleted says whether an object whose witness was seen was deleted, by something else than relight. The order of the looks is what makes it certain.
func (m *Meta) deleted(ctx context.Context, name string) (bool, error) {
	places := []string{name}
	if kindOf(name) == manifestKind {
		id := relight.SnapshotID(lastElement(name, "/"))
		places = []string{pendingName(id), name, fenceName(id)}
	}
	for _, p := range places {
		if there, err := m.exists(ctx, p); err != nil || there {
			return false, err
		}
	}
	if expired, err := m.expiredManifests(ctx); err != nil || expired[name] {
		return false, err
	}
	_, err := m.getVerified(ctx, witnessKind, witnessName(name))
	if errors.Is(err, blob.ErrNotFound) || unreadable(err) {
		return false, nil
	}
	return err == nil, err
}

// expiredManifests gives the manifests of which retention keeps a copy.
func (m *Meta) expiredManifests(ctx context.Context) (map[string]bool, error) {
	out := map[string]bool{}
	err := m.storage.List(ctx, trashPrefix, func(i blob.Info) error {
		out[formerName(i.Name)] = true
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for expired manifests: %w", notAbsent(err))
	}
	return out, nil
}

// formerName is the manifest whose copy lies in the trash under a name.
func formerName(copied string) string {
	_, former, _ := strings.Cut(strings.TrimPrefix(copied, trashPrefix), "/")
	return former
}

// deletedManifests names the manifests that were deleted by something else than relight, among those that are not listed.
func (m *Meta) deletedManifests(ctx context.Context, listed map[string]time.Time) ([]error, error) {
	expired, err := m.expiredManifests(ctx)
	if err != nil {
		return nil, err
	}
	var unlisted []string
	err = m.storage.List(ctx, witnessPrefix+snapPrefix, func(i blob.Info) error {
		name := strings.TrimPrefix(i.Name, witnessPrefix)
		if _, there := listed[name]; !there && !expired[name] {
			unlisted = append(unlisted, name)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the witnesses of snapshots: %w", notAbsent(err))
	}
	var out []error
	for _, name := range unlisted {
		gone, err := m.deleted(ctx, name)
		if err != nil {
			return nil, err
		}
		if gone {
			out = append(out, corrupt(name, "%s", saidDeleted))
		}
	}
	return out, nil
}

// saidDeleted is what is said of an object that was deleted.
const saidDeleted = "it was stored, as its witness says, and something else than relight deleted it"
