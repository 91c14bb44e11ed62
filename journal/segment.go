package journal

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/toolboxai/relight"
)

// Segment is the head line of an exported stretch of a journal.
type Segment struct {
	Format  int    `json:"format"`
	Journal string `json:"journal"`
	Host    string `json:"host"`
	First   int64  `json:"first"`
	Last    int64  `json:"last"`
	Prev    Hash   `json:"prev"` // of the event before First
}

// Export writes events first to last as a segment. All of them must be there.
func (j *Journal) Export(ctx context.Context, first, last int64, w io.Writer) error {
	if err := j.export(ctx, first, last, w); err != nil {
		return explain(fmt.Sprintf("export events %d to %d of journal", first, last), j.path, err)
	}
	return nil
}

func (j *Journal) export(ctx context.Context, first, last int64, w io.Writer) error {
	if first < 1 || last < first {
		return errors.New("there is no such stretch")
	}
	s := Segment{Format: format, Journal: j.id, Host: j.o.Host, First: first, Last: last, Prev: origin(j.id, j.o.Host)}
	if first > 1 {
		var raw []byte
		if err := j.read.QueryRowContext(ctx, "SELECT hash FROM event WHERE seq = ?", first-1).Scan(&raw); err != nil {
			return err
		}
		copy(s.Prev[:], raw)
	}
	b := bufio.NewWriter(w)
	if err := json.NewEncoder(b).Encode(s); err != nil {
		return err
	}
	for next := first; next <= last; {
		n, err := j.exportPage(ctx, next, min(last, next+page-1), b)
		if err != nil {
			return err
		}
		next += n
	}
	return b.Flush()
}

func (j *Journal) exportPage(ctx context.Context, first, last int64, w io.Writer) (int64, error) {
	rows, err := j.read.QueryContext(ctx, "SELECT seq, body, hash, signer, sig FROM event WHERE seq BETWEEN ? AND ? ORDER BY seq", first, last)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	n := int64(0)
	for ; rows.Next(); n++ {
		var seq int64
		var r record
		var hash []byte
		if err := rows.Scan(&seq, &r.body, &hash, &r.signer, &r.sig); err != nil {
			return 0, err
		}
		if seq != first+n {
			return 0, fmt.Errorf("event %d: %w", first+n, ErrTampered)
		}
		if _, err := fmt.Fprintf(w, `{"hash":"%x","signer":%q,"sig":%q,"event":%s}`+"\n",
			hash, r.signer, base64.StdEncoding.EncodeToString(r.sig), r.body); err != nil {
			return 0, err
		}
	}
	if err := rows.Err(); err != nil {
		return 0, err
	}
	if n != last-first+1 {
		return 0, fmt.Errorf("event %d is not there", first+n)
	}
	return n, nil
}

// segmentLine is one event of a segment; Event keeps its bytes as they stand.
type segmentLine struct {
	Hash   Hash            `json:"hash"`
	Signer string          `json:"signer"`
	Sig    []byte          `json:"sig"`
	Event  json.RawMessage `json:"event"`
}

// ReadSegment gives the events of a segment without judging them; VerifySegments does that. It is what reading the log
// needs when the host is gone.
func ReadSegment(r io.Reader, fn func(relight.Event) error) (Segment, error) {
	return scanSegment(r, func(Segment) error { return nil }, func(l segmentLine) error {
		e, err := decode(l.Event)
		if err != nil {
			return err
		}
		return fn(e)
	})
}

// VerifySegments checks segments of one journal, given in order. The error is for what cannot be read as a segment.
func VerifySegments(t Trust, segments ...io.Reader) (Report, error) {
	v := NewVerification(t)
	for _, r := range segments {
		if err := v.Add(r); err != nil {
			return Report{}, err
		}
	}
	return v.Report()
}

// Verification checks the segments of one journal as they come, so that none but the present one need be in memory.
type Verification struct {
	trust Trust
	count int
	v     *verifier
}

// NewVerification begins one.
func NewVerification(t Trust) *Verification { return &Verification{trust: t} }

// Add checks the next segment. The error is for what cannot be read as a segment.
func (c *Verification) Add(r io.Reader) error {
	c.count++
	var at int64
	s, err := scanSegment(r, func(s Segment) error {
		at = s.First
		if c.v == nil {
			c.v = newVerifier(c.trust, s.Journal, s.Host)
			c.v.resume(s.First, s.Prev)
			return nil
		}
		return c.v.continueWith(s)
	}, func(l segmentLine) error {
		c.v.add(at, record{body: l.Event, hash: l.Hash, signer: l.Signer, sig: l.Sig})
		at++
		return nil
	})
	if err != nil {
		return fmt.Errorf("segment %d: %w", c.count, err)
	}
	if at != s.Last+1 {
		c.v.report.find(at, "missing: the segment was to end with event %d", s.Last)
	}
	return nil
}

// Report is what was found, once all segments were added.
func (c *Verification) Report() (Report, error) {
	if c.v == nil {
		return Report{}, errors.New("no segment is given")
	}
	return c.v.finish(), nil
}

func (v *verifier) continueWith(s Segment) error {
	if s.Journal != v.report.Journal || s.Host != v.report.Host {
		return fmt.Errorf("it belongs to journal %s of %s, the one before to %s of %s", s.Journal, s.Host, v.report.Journal, v.report.Host)
	}
	if s.First == v.next && s.Prev != v.prev {
		v.report.find(s.First, "the segment does not follow from the one before it")
	}
	return nil
}

// scanSegment reads line by line; a line is at most somewhat longer than the longest event.
func scanSegment(r io.Reader, start func(Segment) error, each func(segmentLine) error) (Segment, error) {
	var s Segment
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), maxBody+1024)
	if !lines.Scan() {
		return s, errors.Join(errors.New("it is empty"), lines.Err())
	}
	if err := strict(lines.Bytes(), &s); err != nil {
		return s, hinted(fmt.Errorf("it does not begin like a journal segment: %w", err), "name a journal.db or a file that relight exported")
	}
	if s.Format != format || s.First < 1 || s.Last < s.First {
		return s, fmt.Errorf("format %d, events %d to %d", s.Format, s.First, s.Last)
	}
	if err := start(s); err != nil {
		return s, err
	}
	for n := 2; lines.Scan(); n++ {
		var l segmentLine
		if err := strict(lines.Bytes(), &l); err != nil {
			return s, fmt.Errorf("line %d: %w", n, err)
		}
		if err := each(l); err != nil {
			return s, fmt.Errorf("line %d: %w", n, err)
		}
	}
	return s, lines.Err()
}

func strict(line []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the object")
	}
	return nil
}
