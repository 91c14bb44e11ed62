package repo

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"github.com/zeebo/blake3"
)

const estatePrefix = "estate/"

// EstateBundle is what an estate's recovery starts from: configuration, runbooks, contacts, secrets. Its form
// is the estate's business.
type EstateBundle struct {
	At     time.Time `json:"at"`
	Digest string    `json:"blake3"`
	Data   []byte    `json:"data"`
}

// PutEstate stores a bundle unless the newest one holds the same bytes. It gives the object's name.
func (m *Meta) PutEstate(ctx context.Context, data []byte) (string, error) {
	// The name carries a keyed digest: it tells the writer what is there, and nobody else what it may be.
	id := m.keys.chunkID(data)
	suffix := hex.EncodeToString(id[:8])
	newest, err := m.newestEstate(ctx)
	if err != nil {
		return "", err
	}
	if strings.HasSuffix(newest, "-"+suffix) {
		return newest, nil
	}
	sum := blake3.Sum256(data)
	b := EstateBundle{At: m.now().UTC().Round(0), Digest: hex.EncodeToString(sum[:]), Data: data}
	name := estatePrefix + nameTime(b.At) + "-" + suffix
	if err := m.putSigned(ctx, "estate", name, b, sealedData); err != nil {
		return "", fmt.Errorf("store the estate: %w", err)
	}
	return name, nil
}

func (m *Meta) newestEstate(ctx context.Context) (string, error) {
	newest := ""
	err := m.storage.List(ctx, estatePrefix, func(i blob.Info) error {
		newest = i.Name
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("list estate bundles: %w", notAbsent(err))
	}
	return newest, nil
}

// LatestEstate reads the newest bundle. It never falls back to an older one by itself: the error names the
// object that is refused or damaged.
func (m *Meta) LatestEstate(ctx context.Context, r *Reader) (EstateBundle, error) {
	if r == nil || !r.Meta().keys.CanRead() {
		return EstateBundle{}, errNoDataIdentity()
	}
	newest, err := m.newestEstate(ctx)
	if err != nil {
		return EstateBundle{}, err
	}
	if newest == "" {
		return EstateBundle{}, &relight.Error{
			Op: "read the estate", Subject: m.name, Code: relight.CodeNotFound, Err: fmt.Errorf("no estate was stored here: %w", blob.ErrNotFound),
			Hint: "with the estate's own relight.yaml at hand: relight --config FILE run start infrastructure-loss",
		}
	}
	return m.Estate(ctx, r, newest)
}

// Estate reads one bundle by its object's name.
func (m *Meta) Estate(ctx context.Context, r *Reader, name string) (EstateBundle, error) {
	var b EstateBundle
	if _, err := r.Meta().getSigned(ctx, "estate", name, &b); err != nil {
		return EstateBundle{}, fmt.Errorf("read the estate: %w", err)
	}
	sum := blake3.Sum256(b.Data)
	if hex.EncodeToString(sum[:]) != b.Digest {
		return EstateBundle{}, corrupt(name, "its digest does not match")
	}
	return b, nil
}
