package repo

import (
	"context"
	"fmt"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
)

// PutRecord signs, seals and stores a record under a name of the layout. That the very same record is there
// is no error; other content under the name wraps blob.ErrExists.
func (m *Meta) PutRecord(ctx context.Context, kind, name string, payload any) error {
	if err := validName("record", name); err != nil {
		return err
	}
	return m.putSigned(ctx, kind, name, payload, sealOf(name))
}

// GetRecord reads one record, verified. An error that wraps blob.ErrNotFound means proven absent.
func (m *Meta) GetRecord(ctx context.Context, kind, name string, into any) (Signed, error) {
	return m.getSigned(ctx, kind, name, into)
}

// Records reports the records under a prefix, verified, in the order of their names. One that is refused or
// damaged ends it with an error that names it.
func (m *Meta) Records(ctx context.Context, kind, prefix string, fn func(Signed) error) error {
	var found []string
	err := m.storage.List(ctx, prefix, func(i blob.Info) error {
		found = append(found, i.Name)
		return nil
	})
	if err != nil {
		return fmt.Errorf("list records %s: %w", prefix, notAbsent(err))
	}
	return m.readRecords(ctx, kind, found, fn)
}

func (m *Meta) readRecords(ctx context.Context, kind string, found []string, fn func(Signed) error) error {
	read := func(ctx context.Context, name string) (Signed, error) {
		s, err := m.getVerified(ctx, kind, name)
		return s, notAbsent(err)
	}
	if err := inOrder(ctx, m.o.Workers, found, read, fn); err != nil {
		return fmt.Errorf("read %s records: %w", kind, err)
	}
	return nil
}

// Decode reads a record's payload.
func (s Signed) Decode(into any) error { return s.decode(into) }

// proofName is where a proof lies.
func proofName(p relight.Proof) string {
	return fmt.Sprintf("proof/%s/%s/%s", p.Store, p.Snapshot, nameTime(p.At))
}

// PutProof records that a snapshot was restored and queried, or that this failed.
func (m *Meta) PutProof(ctx context.Context, p relight.Proof) error {
	return m.PutRecord(ctx, "proof", proofName(p), p)
}

// Proofs lists a store's proofs, oldest first for each snapshot.
func (m *Meta) Proofs(ctx context.Context, store string) ([]relight.Proof, error) {
	var out []relight.Proof
	err := m.Records(ctx, "proof", "proof/"+store+"/", func(s Signed) error {
		var p relight.Proof
		if err := s.decode(&p); err != nil {
			return err
		}
		if proofName(p) != s.Name {
			return refused(s.Name, "it proves snapshot %s of store %s", p.Snapshot, p.Store)
		}
		out = append(out, p)
		return nil
	})
	return out, err
}
