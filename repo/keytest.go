package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
)

const testedPrefix = "keys/tested/"

// KeyTested is the signed record that an offline key opened the repository.
type KeyTested struct {
	At         time.Time `json:"at"`
	Recipients []string  `json:"recipients"` // ids of the recipients whose identities were used
	Epochs     []int     `json:"epochs"`
	Sample     string    `json:"sample,omitempty"` // the sealed object that was opened; "" while there is none
}

// KeyTest proves that recovery identities open the repository: every epoch, and an object that is sealed to
// the data recipient. It then records so.
func KeyTest(ctx context.Context, s blob.Storage, o Options, ids ...age.Identity) (KeyTested, error) {
	k, err := Unlock(ctx, s, ids...)
	if err != nil {
		return KeyTested{}, err
	}
	m, err := Open(ctx, s, k, o)
	if err != nil {
		return KeyTested{}, err
	}
	defer m.Close() //nolint:errcheck // nothing was cached
	if len(k.missing) > 0 {
		return KeyTested{}, &relight.Error{
			Op: "test key", Subject: s.String(), Code: relight.CodeVerification,
			Err:  fmt.Errorf("the identity does not open epochs %v", k.missing),
			Hint: "it may belong to a recipient that was removed; relight key list shows the recipients",
		}
	}
	t := KeyTested{At: m.now().UTC().Round(0), Recipients: k.opened, Epochs: k.epochList()}
	if t.Sample, err = m.openSample(ctx); err != nil {
		return KeyTested{}, fmt.Errorf("test key: %w", err)
	}
	name := testedPrefix + nameTime(t.At) + "-" + strings.Join(k.opened[:1], "")
	if err := putPlain(ctx, s, k, "tested", name, t.At, t); err != nil {
		return KeyTested{}, fmt.Errorf("record the key test: %w", err)
	}
	return t, nil
}

// errSampled ends a listing.
var errSampled = errors.New("sampled")

// openSample opens the beginning of one object that is sealed to the data recipient.
func (m *Meta) openSample(ctx context.Context) (string, error) {
	sample := ""
	for _, prefix := range []string{"pack/data/", "wal/", estatePrefix} {
		err := m.storage.List(ctx, prefix, func(i blob.Info) error {
			if prefix == "wal/" && !isSegmentBody(i.Name) {
				return nil
			}
			sample = i.Name
			return errSampled
		})
		if err != nil && !errors.Is(err, errSampled) {
			return "", fmt.Errorf("list %s: %w", prefix, notAbsent(err))
		}
		if sample != "" {
			return sample, m.openBeginning(ctx, sample)
		}
	}
	return "", nil
}

func isSegmentBody(name string) bool {
	parts := strings.Split(name, "/")
	if len(parts) != 5 {
		return false
	}
	segment, suffix, found := strings.Cut(parts[4], ".")
	_, _, ok := parseSegment(segment)
	return found && ok && "."+suffix != metaSuffix
}

func (m *Meta) openBeginning(ctx context.Context, name string) error {
	rc, err := m.storage.Get(ctx, name, 0, -1)
	if err != nil {
		return fmt.Errorf("get %s: %w", name, notAbsent(err))
	}
	defer rc.Close() //nolint:errcheck // only the beginning is wanted
	r, err := m.keys.openData(rc)
	if err == nil {
		_, err = io.ReadFull(r, make([]byte, 1))
	}
	if err != nil {
		return fmt.Errorf("object %s does not open with the data identity: %w", name, notAbsent(err))
	}
	return nil
}

// LastKeyTest gives the newest record that an offline key opened this repository; ok is false when none
// did yet. It needs no secret.
func (m *Meta) LastKeyTest(ctx context.Context) (last KeyTested, ok bool, err error) {
	err = m.storage.List(ctx, testedPrefix, func(i blob.Info) error {
		var t KeyTested
		err := m.getAuthority(ctx, "tested", i.Name, &t)
		if errors.Is(err, ErrRefused) || errors.Is(err, ErrCorrupt) {
			m.log.WarnContext(ctx, "a record of a key test is not believed", "repository", m.name, "err", err)
			return nil
		}
		if err != nil {
			return err
		}
		if !ok || t.At.After(last.At) {
			last, ok = t, true
		}
		return nil
	})
	if err != nil {
		return KeyTested{}, false, fmt.Errorf("look for key tests: %w", notAbsent(err))
	}
	return last, ok, nil
}

// Covers says whether a test opened the given epoch: a test from before a new epoch says nothing about it.
func (t KeyTested) Covers(epoch int) bool { return slices.Contains(t.Epochs, epoch) }
