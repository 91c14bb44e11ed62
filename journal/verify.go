package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/toolboxai/relight"
)

// verifier follows a chain from its beginning, or from a given link.
type verifier struct {
	trust   Trust
	report  Report
	prev    Hash
	next    int64
	started bool
	anchors map[int64][]Anchor // valid ones of this journal
}

func newVerifier(t Trust, id, host string) *verifier {
	v := &verifier{trust: t, report: Report{Journal: id, Host: host}, prev: origin(id, host), next: 1, anchors: map[int64][]Anchor{}}
	v.report.Head.Hash = v.prev
	missing := map[string]int64{}
	for _, a := range t.Anchors {
		if err := t.check(a.Host, a.Signer, a.message(), a.Sig); err != nil || a.Format != format {
			v.report.find(a.Seq, "anchor of %s is not valid: %v", a.At, errors.Join(err, wrongFormat(a.Format)))
			continue
		}
		if a.Journal == id && a.Host == host {
			v.anchors[a.Seq] = append(v.anchors[a.Seq], a)
			continue
		}
		if a.Host == host && !slices.Contains(t.Elsewhere, a.Journal) {
			missing[a.Journal] = max(missing[a.Journal], a.Seq)
		}
	}
	for other, seq := range missing {
		v.report.find(seq, "journal %s of this host is anchored up to event %d and is not here", other, seq)
	}
	v.confirm(Head{Hash: v.prev})
	return v
}

func wrongFormat(f int) error {
	if f == format {
		return nil
	}
	return fmt.Errorf("format %d", f)
}

// resume starts in the middle, as a segment does. What lies before is believed only if an anchor confirms it.
func (v *verifier) resume(first int64, prev Hash) {
	v.next, v.prev = first, prev
	v.confirm(Head{Seq: first - 1, Hash: prev})
	if first > 1 && len(v.anchors[first-1]) == 0 {
		v.report.note("events before %d are not here, and no anchor confirms where they ended", first)
	}
}

func (v *verifier) confirm(h Head) {
	for _, a := range v.anchors[h.Seq] {
		if a.Hash != h.Hash {
			v.report.find(h.Seq, "differs from what was anchored at %s: history was rewritten", a.At)
			continue
		}
		v.report.Anchored = max(v.report.Anchored, h.Seq)
	}
}

// add judges the next row of the journal, stored under number seq.
func (v *verifier) add(seq int64, r record) relight.Event {
	if seq != v.next {
		v.report.find(v.next, "missing: event %d follows event %d", seq, v.next-1)
	}
	e, err := decode(r.body)
	switch {
	case err != nil:
		v.report.find(seq, "%v", err)
	case e.Seq != seq:
		v.report.find(seq, "is event %d put in its place", e.Seq)
	case e.Host != v.report.Host:
		v.report.find(seq, "is of host %s", e.Host)
	}
	h := link(v.prev, r.body)
	if h != r.hash {
		v.report.find(seq, "the chain is broken: the event or one before it was changed")
	}
	if err := v.trust.check(v.report.Host, r.signer, eventMessage(v.report.Journal, seq, r.hash), r.sig); err != nil {
		v.report.find(seq, "%v (signer %s)", err, r.signer)
	}
	v.step(seq, r.hash, e)
	return e
}

// step goes on from the stored hash, so that one change is not reported for everything behind it.
func (v *verifier) step(seq int64, h Hash, e relight.Event) {
	if !v.started {
		v.started, v.report.First, v.report.Began = true, seq, e.At
	}
	if e.At.Before(v.report.Latest) {
		v.report.note("event %d: the clock went back by %s", seq, v.report.Latest.Sub(e.At))
	}
	v.report.Latest = e.At
	v.report.Events++
	v.prev, v.next = h, seq+1
	v.report.Head = Head{Seq: seq, Hash: h}
	v.confirm(v.report.Head)
}

func (v *verifier) finish() Report {
	for seq, as := range v.anchors {
		if seq > v.report.Head.Seq {
			v.report.find(seq, "cut off: anchored at %s, but the journal ends at event %d", as[0].At, v.report.Head.Seq)
		} else if v.started && seq < v.report.First-1 {
			v.report.note("anchor %d lies before the first event here", seq)
		}
	}
	slices.SortStableFunc(v.report.Findings, func(a, b Finding) int { return int(a.Seq - b.Seq) })
	return v.report
}

// Verify checks the whole journal as it is on disk. The error is for what could not be read; what was found is in the report.
func (j *Journal) Verify(ctx context.Context, t Trust) (Report, error) {
	r, err := verifyDatabase(ctx, j.read, t)
	return r, explain("verify journal", j.path, err)
}

// VerifyFile checks a database or a segment that may come from anywhere: nothing in it is trusted and nothing is written.
func VerifyFile(ctx context.Context, path string, t Trust) (Report, error) {
	f, err := os.Open(path)
	if err != nil {
		return Report{}, explain("verify journal", path, err)
	}
	defer f.Close()
	magic := make([]byte, 16)
	n, err := io.ReadFull(f, magic)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return Report{}, explain("verify journal", path, err)
	}
	if string(magic[:n]) != "SQLite format 3\x00" {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return Report{}, explain("verify journal", path, err)
		}
		r, err := VerifySegments(t, f)
		return r, explain("verify journal", path, err)
	}
	r, err := verifyForeign(ctx, path, t)
	return r, explain("verify journal", path, err)
}

func verifyForeign(ctx context.Context, path string, t Trust) (Report, error) {
	r, err := verifyAs(ctx, path, foreign, t)
	if err == nil {
		return r, nil
	}
	if _, werr := os.Stat(path + "-wal"); werr == nil {
		return r, err // immutable would not look into the -wal file and miss its events
	}
	return verifyAs(ctx, path, immutable, t)
}

func verifyAs(ctx context.Context, path string, m mode, t Trust) (Report, error) {
	db, err := connect(path, m)
	if err != nil {
		return Report{}, err
	}
	defer db.Close()
	return verifyDatabase(ctx, db, t)
}

func verifyDatabase(ctx context.Context, db *sql.DB, t Trust) (Report, error) {
	id, host, err := identity(ctx, db)
	if err != nil {
		return Report{}, err
	}
	v := newVerifier(t, id, host)
	if err := v.structure(ctx, db); err != nil {
		return v.report, err
	}
	rows, err := db.QueryContext(ctx, "SELECT seq, run, kind, body, hash, signer, sig FROM event NOT INDEXED ORDER BY seq")
	if err != nil {
		return v.report, err
	}
	defer rows.Close()
	for rows.Next() {
		if err := v.row(rows); err != nil {
			return v.report, err
		}
	}
	if err := rows.Err(); err != nil {
		return v.report, err
	}
	return v.finish(), nil
}

// structure looks for what could make a query lie: damage, and a view or trigger in a table's place.
func (v *verifier) structure(ctx context.Context, db *sql.DB) error {
	var verdict string
	if err := db.QueryRowContext(ctx, "PRAGMA integrity_check(1)").Scan(&verdict); err != nil {
		return err
	}
	if verdict != "ok" {
		v.report.find(0, "the database is damaged: %s", verdict)
	}
	var odd int
	err := db.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_schema WHERE type IN ('view', 'trigger')
		OR type = 'table' AND (name NOT IN ('journal', 'event', 'lease') OR sql LIKE '%VIRTUAL%')`).Scan(&odd)
	if err == nil && odd > 0 {
		v.report.find(0, "the database holds %d views, triggers or tables that relight does not make", odd)
	}
	return err
}

func (v *verifier) row(rows *sql.Rows) error {
	var seq int64
	var run, kind string
	var hash []byte
	var r record
	if err := rows.Scan(&seq, &run, &kind, &r.body, &hash, &r.signer, &r.sig); err != nil {
		return err
	}
	copy(r.hash[:], hash)
	if len(hash) != len(r.hash) {
		v.report.find(seq, "its hash has %d bytes", len(hash))
	}
	if e := v.add(seq, r); string(e.Run) != run || e.Kind != kind {
		v.report.find(seq, "is listed as %q of run %q, but says %q of run %q", kind, run, e.Kind, e.Run)
	}
	return nil
}
