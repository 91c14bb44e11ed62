package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

const (
	damagedKind   = "damaged"
	damagedPrefix = "damaged/"
)

// damagedRecord names packs that are there, and were read and found damaged. A writer takes what lies in them for absent, and stores it again; nothing is
// ever removed because of it.
type damagedRecord struct {
	At    time.Time `json:"at"`
	Packs []string  `json:"packs"`
}

// readDamaged gives the packs that are on record as damaged. A record that is refused or damaged itself names none.
func (m *Meta) readDamaged(ctx context.Context) (map[packID]bool, error) {
	out := map[packID]bool{}
	err := m.eachDamaged(ctx, func(_ string, packs []packID) {
		for _, id := range packs {
			out[id] = true
		}
	})
	return out, err
}

// eachDamaged calls fn for each record with its packs.
func (m *Meta) eachDamaged(ctx context.Context, fn func(name string, packs []packID)) error {
	signed, problems, err := m.listSigned(ctx, damagedKind, damagedPrefix)
	if err != nil {
		return fmt.Errorf("read which packs are damaged: %w", err)
	}
	for _, s := range signed {
		var r damagedRecord
		if err := s.decode(&r); err != nil {
			problems = append(problems, err)
			continue
		}
		var packs []packID
		for _, name := range r.Packs {
			if id, ok := packFromName(name); ok {
				packs = append(packs, id)
			}
		}
		fn(s.Name, packs)
	}
	for _, p := range problems {
		m.log.WarnContext(ctx, "a record of damaged packs does not count", "repository", m.name, "err", p)
	}
	return nil
}

// putDamaged puts packs on record, of which some may be there already.
func (m *Meta) putDamaged(ctx context.Context, packs []string) error {
	if len(packs) == 0 {
		return nil
	}
	known, err := m.readDamaged(ctx)
	if err != nil {
		return err
	}
	news := slices.DeleteFunc(slices.Sorted(slices.Values(packs)), func(name string) bool {
		id, ok := packFromName(name)
		return !ok || known[id]
	})
	for part := range slices.Chunk(slices.Compact(news), marksInPart) {
		suffix, err := randomHex(m.rand, 8)
		if err != nil {
			return err
		}
		at := m.now().UTC()
		name := damagedPrefix + nameTime(at) + "-" + suffix
		if err := m.putSigned(ctx, damagedKind, name, damagedRecord{At: at, Packs: part}, sealedMeta); err != nil {
			return fmt.Errorf("record damaged packs: %w", err)
		}
	}
	return nil
}

// noteDamaged is putDamaged for those who read: a repository that takes no record is no reason to doubt what was read.
func (m *Meta) noteDamaged(ctx context.Context, packs []string) {
	if !m.keys.CanWrite() {
		return
	}
	if err := m.putDamaged(ctx, packs); err != nil {
		m.log.WarnContext(ctx, "damaged packs are not recorded: the next backup does not store again what lies in them", "repository", m.name, "err", err)
	}
}

// damagedPack is the pack whose bytes an error blames; "" where it blames none, or one that is gone.
func damagedPack(err error) string {
	var d *DamageError
	if !errors.As(err, &d) || !errors.Is(d.Err, errDamaged) {
		return ""
	}
	if _, ok := packFromName(d.Object); !ok {
		return ""
	}
	return d.Object
}
