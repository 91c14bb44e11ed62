package journal

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/toolboxai/relight"
)

// Filter selects events. Its zero value selects all.
type Filter struct {
	Run     relight.RunID
	Kinds   []string
	FromSeq int64 // the first number of interest
	Limit   int   // 0: no limit
}

const page = 512

// Read gives the matching events in order. fn may append: no lock is held while it runs. An error of fn ends the reading and
// is returned as it is.
func (j *Journal) Read(ctx context.Context, f Filter, fn func(relight.Event) error) error {
	_, err := j.readFrom(ctx, f, fn)
	return err
}

// readFrom tells the number after the last event that was looked at.
func (j *Journal) readFrom(ctx context.Context, f Filter, fn func(relight.Event) error) (int64, error) {
	next, left := max(f.FromSeq, 1), f.Limit
	for {
		size := page
		if f.Limit > 0 {
			size = min(size, left)
		}
		if size == 0 {
			return next, nil
		}
		es, err := j.page(ctx, f, next, size)
		if err != nil {
			return next, explain("read journal", j.path, err)
		}
		for _, e := range es {
			if err := fn(e); err != nil {
				return next, err
			}
			next = e.Seq + 1
		}
		if len(es) < size {
			return next, nil
		}
		left -= len(es)
	}
}

func (j *Journal) page(ctx context.Context, f Filter, from int64, size int) ([]relight.Event, error) {
	where, args := []string{"seq >= ?"}, []any{from}
	if f.Run != "" {
		where, args = append(where, "run = ?"), append(args, string(f.Run))
	}
	if len(f.Kinds) > 0 {
		where = append(where, "kind IN (?"+strings.Repeat(", ?", len(f.Kinds)-1)+")")
		for _, k := range f.Kinds {
			args = append(args, k)
		}
	}
	rows, err := j.read.QueryContext(ctx, "SELECT seq, body FROM event WHERE "+strings.Join(where, " AND ")+" ORDER BY seq LIMIT ?", append(args, size)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var es []relight.Event
	for rows.Next() {
		var seq int64
		var body []byte
		if err := rows.Scan(&seq, &body); err != nil {
			return nil, err
		}
		e, err := decode(body)
		if err != nil || e.Seq != seq {
			return nil, fmt.Errorf("event %d: %w", seq, ErrTampered)
		}
		es = append(es, e)
	}
	return es, rows.Err()
}

// Watch gives every matching event from f.FromSeq on, also those that other processes append, until ctx ends (it then
// returns ctx's error), fn returns an error, or f.Limit events were given.
func (j *Journal) Watch(ctx context.Context, f Filter, fn func(relight.Event) error) error {
	tick := time.NewTicker(j.o.Poll)
	defer tick.Stop()
	next, given := f.FromSeq, 0
	for {
		h, err := j.Head(ctx)
		if err != nil {
			return err
		}
		if h.Seq >= next {
			g := f
			g.FromSeq, g.Limit = next, max(0, f.Limit-given)
			after, err := j.readFrom(ctx, g, func(e relight.Event) error { given++; return fn(e) })
			if err != nil {
				return err
			}
			next = max(h.Seq+1, after)
		}
		if f.Limit > 0 && given >= f.Limit {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// RunInfo is where a run's events lie.
type RunInfo struct {
	Run    relight.RunID `json:"run"`
	First  int64         `json:"first"`
	Last   int64         `json:"last"`
	Events int64         `json:"events"`
	Began  time.Time     `json:"began"`
	Latest time.Time     `json:"latest"`
}

// Runs lists the runs, the newest first.
func (j *Journal) Runs(ctx context.Context) ([]RunInfo, error) {
	rows, err := j.read.QueryContext(ctx, `SELECT r.run, r.first, r.last, r.n, a.body, b.body
		FROM (SELECT run, min(seq) AS first, max(seq) AS last, count(*) AS n FROM event WHERE run <> '' GROUP BY run) r
		JOIN event a ON a.seq = r.first JOIN event b ON b.seq = r.last ORDER BY r.first DESC`)
	if err != nil {
		return nil, explain("list runs of journal", j.path, err)
	}
	defer rows.Close()
	var all []RunInfo
	for rows.Next() {
		r, err := scanRun(rows)
		if err != nil {
			return nil, explain("list runs of journal", j.path, err)
		}
		all = append(all, r)
	}
	return all, explain("list runs of journal", j.path, rows.Err())
}

func scanRun(rows *sql.Rows) (RunInfo, error) {
	var r RunInfo
	var a, b []byte
	if err := rows.Scan(&r.Run, &r.First, &r.Last, &r.Events, &a, &b); err != nil {
		return r, err
	}
	first, err := decode(a)
	if err != nil {
		return r, fmt.Errorf("event %d: %w", r.First, ErrTampered)
	}
	last, err := decode(b)
	if err != nil {
		return r, fmt.Errorf("event %d: %w", r.Last, ErrTampered)
	}
	r.Began, r.Latest = first.At, last.At
	return r, nil
}
