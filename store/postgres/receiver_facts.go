package postgres

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/zeebo/blake3"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store/postgres/walfile"
)

// factReader makes sidecars: it reads ranges of the spool in order, verifies every record, and collects what they contain. A record
// belongs to the range in which it ends.
type factReader struct {
	spool *spool
	st    *stretch
	scan  *walfile.Scanner
	blind bool // the format is not known: ship without facts
}

// errSpoolDamaged says that bytes of the spool are no longer what was received.
var errSpoolDamaged = errors.New("WAL in the spool is damaged")

// read gives the sidecar of from..to, inside one segment, and its bytes. On a retry it may be asked for the same range again.
func (f *factReader) read(from, to relight.LSN) (repo.Sidecar, *spoolRange, error) {
	id := f.spool.identity()
	start := walfile.SegmentStart(from, id.SegmentSize)
	sc := repo.Sidecar{
		System: id.System, Timeline: f.st.tl, Name: walfile.SegmentName(f.st.tl, from, id.SegmentSize),
		Start: from, End: to, SegmentSize: id.SegmentSize, Version: id.Version, Size: int64(to - from),
	}
	file, err := f.spool.open(f.st.tl, start)
	if err != nil {
		return sc, nil, err
	}
	r := &spoolRange{SectionReader: io.NewSectionReader(file, int64(from-start), int64(to-from)), file: file}
	sum := blake3.New()
	err = f.prepare(from, start, file)
	sc.Tablespaces = new(int)
	if err == nil {
		_, err = io.Copy(io.MultiWriter(sum, factWriter{f, &sc}), r)
	}
	if err == nil {
		_, err = r.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.scan = nil
		return sc, nil, errors.Join(fmt.Errorf("read WAL %s to %s of the spool: %w", from, to, err), file.Close())
	}
	if f.blind || f.scan.PassedOver() > from { // a record that ends here was not seen whole
		sc.Tablespaces = nil
	}
	sc.Digest = fmt.Sprintf("%x", sum.Sum(nil))
	return sc, r, nil
}

// prepare brings the scanner to from: it goes on, or begins anew a segment earlier if the spool has that, so that a record that
// spans the border is seen.
func (f *factReader) prepare(from, start relight.LSN, file *os.File) error {
	if f.scan != nil && f.scan.Pos() == from {
		return nil
	}
	id := f.spool.identity()
	size := relight.LSN(id.SegmentSize)
	begin := start
	var before *os.File
	if start >= f.st.begin+size {
		if p, err := f.spool.open(f.st.tl, start-size); err == nil {
			before, begin = p, start-size
		}
	}
	var err error
	f.scan, err = walfile.NewScanner(walfile.Options{Start: begin, SegmentSize: id.SegmentSize, Check: true, System: id.System, Timeline: f.st.tl})
	if before != nil {
		err = errors.Join(err, f.pass(io.LimitReader(before, id.SegmentSize)), before.Close())
	}
	if err != nil {
		return err
	}
	return f.pass(io.NewSectionReader(file, 0, int64(from-start)))
}

// pass feeds bytes whose events belong elsewhere.
func (f *factReader) pass(r io.Reader) error {
	_, err := io.Copy(factWriter{f, &repo.Sidecar{}}, r)
	return err
}

// factWriter feeds the scanner and adds events to a sidecar.
type factWriter struct {
	f  *factReader
	sc *repo.Sidecar
}

func (w factWriter) Write(p []byte) (int, error) {
	if w.f.blind {
		return len(p), nil
	}
	err := w.f.scan.Feed(p, func(e walfile.Event) error {
		addFact(w.sc, e)
		return nil
	})
	if err == nil {
		return len(p), nil
	}
	if _, seen := w.f.scan.LastPage(); !seen && walfile.Major(uint16(p[0])|uint16(p[1])<<8) == 0 {
		w.f.blind = true // a server that this version does not know; WAL is kept all the same
		return len(p), nil
	}
	return 0, fmt.Errorf("%w: %w", errSpoolDamaged, err)
}

func addFact(sc *repo.Sidecar, e walfile.Event) {
	switch e.Kind {
	case walfile.Commit:
		if sc.Commits == 0 {
			sc.FirstCommit, sc.FirstXID = e.Time, e.XID
		}
		sc.Commits++
		sc.LastCommit, sc.LastXID, sc.LastEnd = e.Time, e.XID, e.End
		for _, rel := range e.Dropped {
			sc.Dropped = append(sc.Dropped, repo.DroppedRelation{XID: e.XID, At: e.Time, LSN: e.Start, Relation: rel.String()})
		}
	case walfile.RestorePoint:
		sc.Marks = append(sc.Marks, relight.NamedMark{Name: e.Name, Point: relight.Point{Timeline: sc.Timeline, LSN: e.End, Time: e.Time}})
	case walfile.CreateTablespace:
		if sc.Tablespaces != nil {
			*sc.Tablespaces++
		}
	}
}

// spoolRange is a piece of a segment of the spool.
type spoolRange struct {
	*io.SectionReader
	file *os.File
}

func (r *spoolRange) Close() error { return r.file.Close() }
