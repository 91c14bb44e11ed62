package repo

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"github.com/zeebo/blake3"
)

// Format is the version of the repository format that this program writes; it reads Format and Format−1.
const Format = 1

const descriptorName = "relight.json"

// Descriptor is the plain, public first object of a repository.
type Descriptor struct {
	Format       int               `json:"format"`
	ID           string            `json:"id"` // 32 hex digits
	Created      time.Time         `json:"created"`
	Chunk        int               `json:"chunk"` // bytes of a page-file chunk
	LiveInterval int64             `json:"live_interval_ms"`
	Authority    ed25519.PublicKey `json:"authority"` // signs enrolments and recipients
	SingleHost   bool              `json:"single_host"`
}

// Fingerprint is what the rescue kit prints and an operator compares: a repository forged under the same
// address has another one.
func (d Descriptor) Fingerprint() string {
	sum := blake3.Sum256(append([]byte(d.ID), d.Authority...))
	return hex.EncodeToString(sum[:8])
}

// LiveEvery is the interval at which a writer makes the live tail durable.
func (d Descriptor) LiveEvery() time.Duration {
	return time.Duration(d.LiveInterval) * time.Millisecond
}

// ReadDescriptor reads the descriptor without any key. It proves nothing: compare the fingerprint.
func ReadDescriptor(ctx context.Context, s blob.Storage) (Descriptor, error) {
	b, err := getAll(ctx, s, descriptorName, 64<<10)
	if errors.Is(err, blob.ErrNotFound) && hasKeys(ctx, s) {
		return Descriptor{}, &relight.Error{
			Op: "open repository", Subject: s.String(), Code: relight.CodeVerification, Err: corrupt(descriptorName, "it is missing although keys of a repository are there"),
			Hint: "put it back from a mirror, or write it as the rescue kit prints it: all that it says is public",
		}
	}
	if errors.Is(err, blob.ErrNotFound) {
		return Descriptor{}, &relight.Error{
			Op: "open repository", Subject: s.String(), Code: relight.CodeUsage, Err: fmt.Errorf("there is no repository here: %w", err),
			Hint: "check the address, or make one with relight repo init",
		}
	}
	if err != nil {
		return Descriptor{}, fmt.Errorf("read descriptor of %s: %w", s, err)
	}
	d, err := parseDescriptor(b)
	if err != nil {
		return Descriptor{}, usage("open repository", s.String(), "check that the address is that of a relight repository of this version", "%w", err)
	}
	return d, nil
}

// hasKeys says whether a repository's epoch was opened here. An interrupted init leaves one too; there is nothing to lose then.
func hasKeys(ctx context.Context, s blob.Storage) bool {
	found := false
	_ = s.List(ctx, hostPrefix, func(blob.Info) error { found = true; return nil }) // a hint only: what fails here has failed already
	return found
}

func parseDescriptor(b []byte) (Descriptor, error) {
	var d Descriptor
	if err := json.Unmarshal(b, &d); err != nil {
		return Descriptor{}, corrupt(descriptorName, "%v", err)
	}
	switch {
	case d.Format > Format:
		return Descriptor{}, fmt.Errorf("the repository has format %d and this program reads up to %d", d.Format, Format)
	case d.Format < 1:
		return Descriptor{}, corrupt(descriptorName, "format %d", d.Format)
	case len(d.ID) != 32 || !isHex(d.ID):
		return Descriptor{}, corrupt(descriptorName, "id %q is not 32 hex digits", d.ID)
	case len(d.Authority) != ed25519.PublicKeySize:
		return Descriptor{}, corrupt(descriptorName, "the authority key has %d bytes", len(d.Authority))
	case d.Chunk != 32<<10 && d.Chunk != 64<<10:
		return Descriptor{}, corrupt(descriptorName, "chunk size %d is neither 32 nor 64 KiB", d.Chunk)
	case d.LiveInterval < 1 || d.LiveInterval > int64(time.Hour/time.Millisecond):
		return Descriptor{}, corrupt(descriptorName, "live interval of %d ms", d.LiveInterval)
	}
	return d, nil
}

// getAll reads a whole small object of at most limit bytes.
func getAll(ctx context.Context, s blob.Storage, name string, limit int64) ([]byte, error) {
	rc, err := s.Get(ctx, name, 0, -1)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(rc, limit+1))
	if cerr := rc.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, notAbsent(err))
	}
	if int64(len(b)) > limit {
		return nil, corrupt(name, "larger than %d bytes", limit)
	}
	return b, nil
}

// notAbsent keeps an error met after an object was opened from passing for absence.
func notAbsent(err error) error {
	if errors.Is(err, blob.ErrNotFound) {
		return fmt.Errorf("it vanished while it was read: %v", err)
	}
	return err
}

func put(ctx context.Context, s blob.Storage, name string, b []byte) error {
	return s.Put(ctx, name, bytes.NewReader(b), blob.PutOptions{})
}

func isHex(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return s != ""
}
