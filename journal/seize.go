package journal

import (
	"context"
	"database/sql"

	"github.com/toolboxai/relight"
)

// Seize takes a lease whose owner still seems to live, on a person's order. The former holder can append nothing under it from then on.
func (j *Journal) Seize(ctx context.Context, what string, owner relight.Handle) (*Lease, error) {
	l := &Lease{What: what, Owner: owner}
	err := j.update(ctx, func(tx *sql.Tx) error {
		old, given, err := leaseRow(ctx, tx, what)
		if err != nil {
			return err
		}
		l.Epoch = old.Epoch + 1
		return j.take(ctx, tx, l, old, given || old.Epoch == 0)
	})
	if err != nil {
		return nil, explain("seize lease "+what+" in journal", j.path, err)
	}
	return l, nil
}
