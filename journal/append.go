package journal

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"database/sql"
	"errors"
	"fmt"

	"github.com/toolboxai/relight"
)

// Expect is what must hold for an append to happen. Its zero value expects nothing.
type Expect struct {
	run   relight.RunID
	last  int64
	check bool
	lease *Lease
}

// After expects that the run's last event is the one with number seq; 0: that it has none.
func After(run relight.RunID, seq int64) Expect { return Expect{run: run, last: seq, check: true} }

// Under expects also that l is still held.
func (x Expect) Under(l *Lease) Expect {
	x.lease = l
	return x
}

// Append adds one event and returns it as it was stored. Seq, At and Host are given by the journal, Actor where it is empty.
// It returns when the event is durable.
func (j *Journal) Append(ctx context.Context, e relight.Event, x Expect) (relight.Event, error) {
	es, err := j.AppendBatch(ctx, []relight.Event{e}, x)
	if err != nil {
		return relight.Event{}, err
	}
	return es[0], nil
}

// AppendBatch adds all events or none, next to each other, for the price of one.
func (j *Journal) AppendBatch(ctx context.Context, es []relight.Event, x Expect) ([]relight.Event, error) {
	var out []relight.Event
	err := j.update(ctx, func(tx *sql.Tx) error {
		if err := x.hold(ctx, tx); err != nil {
			return err
		}
		var err error
		out, err = j.add(ctx, tx, es)
		return err
	})
	return out, err
}

// update runs fn in a transaction that no other writer can come between.
func (j *Journal) update(ctx context.Context, fn func(tx *sql.Tx) error) error {
	var tx *sql.Tx
	err := insist(ctx, func() (err error) {
		tx, err = j.write.BeginTx(ctx, nil)
		return err
	})
	if err != nil {
		return explain("append to journal", j.path, err)
	}
	defer func() { _ = tx.Rollback() }()
	if err := fn(tx); err != nil {
		return explain("append to journal", j.path, err)
	}
	now, err := head(ctx, tx, j.id, j.o.Host)
	if err == nil {
		err = tx.Commit()
	}
	if err != nil {
		return explain("append to journal", j.path, err)
	}
	j.sighted(now)
	return nil
}

// add chains es to the head.
func (j *Journal) add(ctx context.Context, tx *sql.Tx, es []relight.Event) ([]relight.Event, error) {
	h, err := head(ctx, tx, j.id, j.o.Host)
	if err != nil {
		return nil, err
	}
	if err := j.recognise(ctx, tx, h); err != nil {
		return nil, err
	}
	out := make([]relight.Event, 0, len(es))
	for _, e := range es {
		e, r, err := j.seal(e, &h)
		if err != nil {
			return nil, err
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?)",
			e.Seq, string(e.Run), e.Kind, r.body, r.hash[:], r.signer, r.sig); err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// recognise refuses to sign on top of a past that differs from the one this process saw.
func (j *Journal) recognise(ctx context.Context, tx *sql.Tx, h Head) error {
	seen := j.lastSeen()
	if seen.Seq == 0 || seen == h {
		return nil
	}
	var raw []byte
	err := tx.QueryRowContext(ctx, "SELECT hash FROM event WHERE seq = ?", seen.Seq).Scan(&raw)
	if err == nil && bytes.Equal(raw, seen.Hash[:]) {
		return nil
	}
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	return fmt.Errorf("event %d: %w", seen.Seq, ErrTampered)
}

// seal makes e the next event after h and moves h on.
func (j *Journal) seal(e relight.Event, h *Head) (relight.Event, record, error) {
	e.Seq, e.At, e.Host = h.Seq+1, j.o.Now(), j.o.Host
	if e.Actor == "" {
		e.Actor = j.o.Actor
	}
	j.scrub(&e)
	body, err := encode(e)
	if err != nil {
		return e, record{}, err
	}
	if j.o.Scrub != nil && !bytes.Equal(j.o.Scrub(body), body) {
		return e, record{}, errors.New("event " + e.Kind + " holds a known secret that cannot be taken out")
	}
	if e, err = decode(body); err != nil {
		return e, record{}, err
	}
	h.Seq, h.Hash = e.Seq, link(h.Hash, body)
	return e, record{body: body, hash: h.Hash, signer: j.signer,
		sig: ed25519.Sign(j.o.Signer, eventMessage(j.id, e.Seq, h.Hash))}, nil
}

func (j *Journal) scrub(e *relight.Event) {
	if j.o.Scrub == nil {
		return
	}
	e.Data = j.o.Scrub(e.Data)
	e.Actor = string(j.o.Scrub([]byte(e.Actor)))
	e.Step = string(j.o.Scrub([]byte(e.Step)))
}

func (x Expect) hold(ctx context.Context, tx *sql.Tx) error {
	if x.lease != nil {
		if err := x.lease.held(ctx, tx); err != nil {
			return err
		}
	}
	if !x.check {
		return nil
	}
	var last sql.NullInt64
	if err := tx.QueryRowContext(ctx, "SELECT max(seq) FROM event WHERE run = ?", string(x.run)).Scan(&last); err != nil {
		return err
	}
	if last.Int64 != x.last {
		return &relight.Error{Op: "continue run", Subject: string(x.run), Code: relight.CodeLeaseHeld,
			Err:  fmt.Errorf("%w: the last is event %d, not %d", ErrConflict, last.Int64, x.last),
			Hint: "another process went on with this run; read it again"}
	}
	return nil
}
