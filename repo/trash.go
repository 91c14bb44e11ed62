package repo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
)

const (
	trashPrefix = "trash/"
	trashSnaps  = "/snap/"
	dueMark     = "due"
	marksInPart = 20_000 // names in one record of marks
)

// trashRecord is a record under trash/<epoch>/: marks.<n> with Objects, thin with Packs, sealed, which comes last and makes
// the epoch count, and due, which comes before anything of it is deleted.
type trashRecord struct {
	Epoch   int64                `json:"epoch"`
	At      time.Time            `json:"at,omitzero"`
	Objects []string             `json:"objects,omitempty"`
	Packs   []string             `json:"packs,omitempty"`
	Parts   int                  `json:"parts,omitempty"`
	Pending []relight.SnapshotID `json:"pending,omitempty"` // backups that had begun before the marks could be seen
}

// trashEpoch is what one run of retention marked.
type trashEpoch struct {
	epoch    int64
	sealed   *trashRecord // nil: it was interrupted, and nothing is ever deleted because of it
	received time.Time    // when the storage received the seal; zero where it does not tell
	marks    nameTable    // in the order of its records; for their names alone
	thin     []string
	names    []string // every object of the epoch
	parts    int
	due      bool      // what it marked may be deleted at any moment
	dueAt    time.Time // when the storage received that; zero where it does not tell, or it was just said
}

type trashEpochs []*trashEpoch

func trashDir(epoch int64) string { return fmt.Sprintf("%s%010d/", trashPrefix, epoch) }

// readTrash reads all marks. A record that is refused or damaged marks nothing, and leaves its epoch unsealed.
func (m *Meta) readTrash(ctx context.Context) (trashEpochs, error) {
	byEpoch := map[int64]*trashEpoch{}
	var names []blob.Info
	err := m.storage.List(ctx, trashPrefix, func(i blob.Info) error {
		names = append(names, i)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the marks of retention: %w", notAbsent(err))
	}
	for _, i := range names {
		digits, rest, _ := strings.Cut(strings.TrimPrefix(i.Name, trashPrefix), "/")
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil {
			continue
		}
		e := byEpoch[n]
		if e == nil {
			e = &trashEpoch{epoch: n}
			byEpoch[n] = e
		}
		e.names = append(e.names, i.Name)
		if rest == dueMark { // that it is there is enough: who is in doubt keeps away
			e.due, e.dueAt = true, i.Modified
		}
		if rest == dueMark || strings.HasPrefix("/"+rest, trashSnaps) {
			continue
		}
		if err := m.readMark(ctx, e, i); err != nil {
			return nil, err
		}
	}
	var out trashEpochs
	for _, e := range byEpoch {
		if e.sealed != nil && e.sealed.Parts != e.parts {
			e.sealed = nil // some of its marks are missing: they were being cleared away
		}
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b *trashEpoch) int { return cmp.Compare(a.epoch, b.epoch) })
	return out, nil
}

func (m *Meta) readMark(ctx context.Context, e *trashEpoch, i blob.Info) error {
	var r trashRecord
	s, err := m.getSigned(ctx, "trash", i.Name, &r)
	if err == nil {
		err = m.mayRetain(s)
	}
	if errors.Is(err, blob.ErrNotFound) {
		return nil
	}
	if errors.Is(err, ErrRefused) || errors.Is(err, ErrCorrupt) {
		m.log.WarnContext(ctx, "a mark of retention does not count", "err", err)
		return nil
	}
	if err != nil || r.Epoch != e.epoch {
		return err
	}
	switch {
	case strings.HasSuffix(i.Name, "/sealed"):
		e.sealed, e.received = &r, i.Modified
	case strings.HasSuffix(i.Name, "/thin"):
		e.thin = append(e.thin, r.Packs...)
	default:
		e.parts++
		for _, name := range r.Objects {
			e.marks.add(name, 0)
		}
	}
	return nil
}

// packs are those that no new backup may refer to: what is marked goes, what is thin is to be stored anew.
func (t trashEpochs) packs() map[packID]bool {
	out := map[packID]bool{}
	note := func(name string) {
		if id, ok := packFromName(name); ok {
			out[id] = true
		}
	}
	for _, e := range t {
		for name := range e.marks.all() {
			note(name)
		}
		for _, name := range e.thin {
			note(name)
		}
	}
	return out
}

// announced are the objects that may be deleted at any moment. An epoch whose seal is gone was dealt with.
func (t trashEpochs) announced() iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, e := range t {
			if !e.due || !slices.Contains(e.names, trashDir(e.epoch)+"sealed") {
				continue
			}
			for name := range e.marks.all() {
				if !yield(name) {
					return
				}
			}
		}
	}
}

func (t trashEpochs) newest() int64 {
	if len(t) == 0 {
		return 0
	}
	return t[len(t)-1].epoch
}

// putMarks stores the marks of an epoch; nothing is deleted because of them before they are sealed.
func (m *Meta) putMarks(ctx context.Context, epoch int64, objects iter.Seq[string]) (parts int, err error) {
	var part []string
	put := func() error {
		if len(part) == 0 {
			return nil
		}
		r := trashRecord{Epoch: epoch, Objects: part}
		if err := m.putSigned(ctx, "trash", trashDir(epoch)+"marks."+strconv.Itoa(parts), r, sealedMeta); err != nil {
			return fmt.Errorf("mark what is to go: %w", err)
		}
		part, parts = part[:0], parts+1
		return nil
	}
	for name := range objects {
		part = append(part, name)
		if len(part) < marksInPart {
			continue
		}
		if err := put(); err != nil {
			return parts, err
		}
	}
	err = put()
	return parts, err
}

// putThin stores which packs an epoch found to be thin.
func (m *Meta) putThin(ctx context.Context, epoch int64, packs []string) error {
	if len(packs) == 0 {
		return nil
	}
	if err := m.putSigned(ctx, "trash", trashDir(epoch)+"thin", trashRecord{Epoch: epoch, Packs: packs}, sealedMeta); err != nil {
		return fmt.Errorf("mark thin packs: %w", err)
	}
	return nil
}

// seal ends the marking. Backups that are registered now may have begun before the marks could be seen: as long as one of them
// runs, nothing of this epoch is deleted. Whoever registers later has seen the marks.
func (m *Meta) seal(ctx context.Context, epoch int64, parts int) ([]relight.SnapshotID, error) {
	alive, _, err := m.pendings(ctx)
	if err != nil {
		return nil, err
	}
	r := trashRecord{Epoch: epoch, At: m.now().UTC().Round(0), Parts: parts}
	for _, p := range alive {
		r.Pending = append(r.Pending, p.Snapshot)
	}
	if err := m.putSigned(ctx, "trash", trashDir(epoch)+"sealed", r, sealedMeta); err != nil {
		return nil, fmt.Errorf("seal the marks: %w", err)
	}
	return r.Pending, nil
}

// clear removes the records of an epoch, the seal first: what is left of it then marks and deletes nothing. With the copy of a manifest the snapshot is gone for
// good, unless the manifest is where it was.
func (m *Meta) clear(ctx context.Context, e *trashEpoch) error {
	seal := trashDir(e.epoch) + "sealed"
	for _, name := range append([]string{seal}, slices.DeleteFunc(e.names, func(n string) bool { return n == seal })...) {
		err := error(nil)
		if former := formerName(name); kindOf(former) == manifestKind {
			err = m.takeBack(ctx, former)
		}
		if err == nil {
			err = m.remove(ctx, name)
		}
		if err != nil {
			return fmt.Errorf("clear marks: delete %s: %w", name, err)
		}
	}
	return nil
}
