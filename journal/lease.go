package journal

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/toolboxai/relight"
)

// Lease is the right to do something on this host, numbered so that a former holder can be told from the present one.
type Lease struct {
	What  string         `json:"what"`
	Epoch int64          `json:"epoch"`
	Owner relight.Handle `json:"owner"`
}

type leaseEvent struct {
	Lease
	TookOverFrom *relight.Handle `json:"took_over_from,omitempty"`
}

// Acquire takes the lease on what, such as "run/r-1" or "store/main", for the process that owner names. A lease whose owner
// is dead is taken over at once. Each holder has a higher epoch than the one before.
func (j *Journal) Acquire(ctx context.Context, what string, owner relight.Handle) (*Lease, error) {
	for {
		old, free, err := j.free(ctx, what)
		if err != nil {
			return nil, err
		}
		l := &Lease{What: what, Epoch: old.Epoch + 1, Owner: owner}
		won := false
		err = j.update(ctx, func(tx *sql.Tx) error {
			now, _, err := leaseRow(ctx, tx, what)
			if err != nil || now.Epoch != old.Epoch { // another process was quicker
				return err
			}
			won = true
			return j.take(ctx, tx, l, old, free)
		})
		if err != nil || won {
			return l, err
		}
	}
}

// free refuses when the lease is held; given says that its last owner gave it back, rather than died.
func (j *Journal) free(ctx context.Context, what string) (old Lease, given bool, err error) {
	old, given, err = leaseRow(ctx, j.read, what)
	if err != nil {
		return old, false, explain("acquire lease "+what+" in journal", j.path, err)
	}
	if given || old.Epoch == 0 {
		return old, true, nil
	}
	alive := true
	if j.o.Alive != nil {
		if alive, err = j.o.Alive(old.Owner); err != nil {
			return old, false, leaseHeld(old, fmt.Errorf("cannot tell whether its holder lives: %w", err))
		}
	}
	if alive {
		return old, false, leaseHeld(old, errors.New("it is held"))
	}
	return old, false, nil
}

func leaseHeld(l Lease, err error) error {
	return &relight.Error{Op: "acquire lease", Subject: l.What, Code: relight.CodeLeaseHeld,
		Err:  fmt.Errorf("%w by process %d (%s), epoch %d", err, l.Owner.PID, l.Owner.What, l.Epoch),
		Hint: fmt.Sprintf("wait until process %d is done, or end it", l.Owner.PID)}
}

func (j *Journal) take(ctx context.Context, tx *sql.Tx, l *Lease, old Lease, free bool) error {
	owner, err := json.Marshal(l.Owner)
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO lease VALUES (?, ?, ?, 0)
		ON CONFLICT (what) DO UPDATE SET epoch = excluded.epoch, owner = excluded.owner, released = 0`, l.What, l.Epoch, string(owner)); err != nil {
		return err
	}
	e := leaseEvent{Lease: *l}
	if !free {
		e.TookOverFrom = &old.Owner
	}
	return j.note(ctx, tx, "lease.acquired", e)
}

// Release gives the lease back. A lease that was taken over meanwhile is ErrStale.
func (j *Journal) Release(ctx context.Context, l *Lease) error {
	return j.update(ctx, func(tx *sql.Tx) error {
		if err := l.held(ctx, tx); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "UPDATE lease SET released = 1 WHERE what = ?", l.What); err != nil {
			return err
		}
		return j.note(ctx, tx, "lease.released", leaseEvent{Lease: *l})
	})
}

// Held is nil while l is.
func (j *Journal) Held(ctx context.Context, l *Lease) error {
	return explain("check lease "+l.What+" in journal", j.path, l.held(ctx, j.read))
}

func (j *Journal) note(ctx context.Context, tx *sql.Tx, kind string, data any) error {
	b, err := json.Marshal(data)
	if err != nil {
		return err
	}
	_, err = j.add(ctx, tx, []relight.Event{{Kind: kind, Data: b}})
	return err
}

func (l *Lease) held(ctx context.Context, q querier) error {
	now, released, err := leaseRow(ctx, q, l.What)
	if err != nil {
		return err
	}
	if now.Epoch == l.Epoch && !released {
		return nil
	}
	return &relight.Error{Op: "act under lease", Subject: l.What, Code: relight.CodeLeaseHeld,
		Err:  fmt.Errorf("%w: epoch %d, now epoch %d of process %d", ErrStale, l.Epoch, now.Epoch, now.Owner.PID),
		Hint: "another process carries on; this one must stop"}
}

func leaseRow(ctx context.Context, q querier, what string) (l Lease, released bool, err error) {
	l.What = what
	var owner string
	err = q.QueryRowContext(ctx, "SELECT epoch, owner, released FROM lease WHERE what = ?", what).Scan(&l.Epoch, &owner, &released)
	if errors.Is(err, sql.ErrNoRows) {
		return l, false, nil
	}
	if err != nil {
		return l, false, err
	}
	return l, released, json.Unmarshal([]byte(owner), &l.Owner)
}
