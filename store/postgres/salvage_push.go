package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/zeebo/blake3"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

// push takes what was salvaged into the repository: whole segments as such, the end as a live range. What the server wrote is then all
// there, so the repository covers it up to the present: the stopped server writes nothing more.
func (v *salvage) push(ctx context.Context) error {
	k := repo.WALKey{Store: v.s.c.Name, System: v.out.System, Timeline: v.out.Timeline}
	if err := v.pushHistory(ctx, k); err != nil {
		return err
	}
	for i, p := range v.parts {
		if i == len(v.parts)-1 && v.out.Broken == "" {
			p.sc.CoveredAt = v.s.now().UTC()
		}
		if err := v.pushPart(ctx, k, p); err != nil {
			return fmt.Errorf("push salvaged WAL %s to %s: %w", p.sc.Start, p.sc.End, err)
		}
	}
	v.out.Pushed = true
	return nil
}

func (v *salvage) pushPart(ctx context.Context, k repo.WALKey, p salvagedPart) (err error) {
	f, err := os.Open(p.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	start := walfile.SegmentStart(p.sc.Start, v.size)
	body := io.NewSectionReader(f, int64(p.sc.Start-start), int64(p.sc.End-p.sc.Start))
	sum := blake3.New()
	if _, err := io.Copy(sum, body); err != nil {
		return err
	}
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return err
	}
	p.sc.Digest, p.sc.Size = fmt.Sprintf("%x", sum.Sum(nil)), int64(p.sc.End-p.sc.Start)
	if p.sc.Start == start && p.sc.End == start+relight.LSN(v.size) {
		return v.o.Sink.PutSegment(ctx, k, p.sc, body)
	}
	return v.o.Sink.PutLive(ctx, k, p.sc, body)
}

// pushHistory comes first: WAL of a timeline whose origin is unknown is of no use.
func (v *salvage) pushHistory(ctx context.Context, k repo.WALKey) error {
	if l := v.a.lines[lineKey{v.out.System, v.out.Timeline}]; v.out.Timeline == 1 || v.history == "" || l != nil && l.related {
		return nil
	}
	text, err := os.ReadFile(v.history)
	if err != nil {
		return err
	}
	if _, err := walfile.ParseHistory(v.out.Timeline, string(text)); err != nil {
		return fmt.Errorf("history of timeline %d: %w", v.out.Timeline, err)
	}
	sum := blake3.Sum256(text)
	sc := repo.Sidecar{
		System: v.out.System, Timeline: v.out.Timeline, Name: walfile.HistoryName(v.out.Timeline), SegmentSize: v.size, Version: v.version,
		Size: int64(len(text)), Digest: fmt.Sprintf("%x", sum),
	}
	return v.o.Sink.PutHistory(ctx, k, sc, strings.NewReader(string(text)))
}
