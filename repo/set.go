package repo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
)

const (
	setKind   = "set"
	setPrefix = "set/"
	// SetMark begins the name of a restore point that belongs to a recovery set: "set:before-release".
	SetMark = "set:"
	// maxSetName leaves room for SetMark in what a server takes for a name.
	maxSetName = 59
)

// Set is a recovery set: one name for one instant of several stores. Each member is a named restore point in its own store's log, so that the
// restore of a member needs no more than any other; the record says which members there should be, and until when they are kept together.
type Set struct {
	Format  int           `json:"format"`
	Name    string        `json:"name"`
	At      time.Time     `json:"at"`             // the clock of the host that set it
	Spread  time.Duration `json:"spread_ns"`      // within it all members' points lie, by that host's monotonic clock
	Until   time.Time     `json:"until,omitzero"` // kept together so long; zero: as each store's rules have it
	Members []SetMember   `json:"members"`
}

// SetMember is one store's part of a set.
type SetMember struct {
	Store  string           `json:"store"`
	System relight.SystemID `json:"system"`
	Point  relight.Point    `json:"point"`
}

// Mark is the name of the restore point in each member.
func (s Set) Mark() string { return SetMark + s.Name }

// ValidSetName checks what a person chose.
func ValidSetName(name string) error {
	if err := validElement("set", name); err != nil {
		return err
	}
	if len(name) > maxSetName {
		return usage("name", "set", fmt.Sprintf("choose one of at most %d bytes", maxSetName), "%q is too long for a restore point", name)
	}
	return nil
}

// PutSet records a set. Its name is used once: another set under it is refused.
func (m *Meta) PutSet(ctx context.Context, s Set) error {
	if err := ValidSetName(s.Name); err != nil {
		return err
	}
	s.Format, s.At, s.Until = 1, s.At.UTC(), s.Until.UTC()
	return m.putSigned(ctx, setKind, setPrefix+s.Name, s, sealedMeta)
}

// Set reads one set, verified; ok is false when there is none.
func (m *Meta) Set(ctx context.Context, name string) (s Set, ok bool, err error) {
	if err := ValidSetName(name); err != nil {
		return Set{}, false, err
	}
	signed, err := m.getVerified(ctx, setKind, setPrefix+name)
	if errors.Is(err, blob.ErrNotFound) {
		return Set{}, false, nil
	}
	if err != nil {
		return Set{}, false, err
	}
	s, err = decodeSet(signed)
	return s, err == nil, err
}

func decodeSet(signed Signed) (Set, error) {
	var s Set
	if err := signed.decode(&s); err != nil {
		return s, err
	}
	switch {
	case s.Format > Format || s.Format < 1:
		return s, fmt.Errorf("set %s has format %d and this program reads up to %d", signed.Name, s.Format, Format)
	case signed.Name != setPrefix+s.Name:
		return s, refused(signed.Name, "it describes the set %q", s.Name)
	case len(s.Members) == 0:
		return s, corrupt(signed.Name, "it has no members")
	}
	return s, nil
}

// Sets lists the recovery sets in the order of their names. One that is refused or damaged is left out with a warning in the log; Check
// reports it as a finding.
func (m *Meta) Sets(ctx context.Context) ([]Set, error) {
	signed, problems, err := m.listSigned(ctx, setKind, setPrefix)
	if err != nil {
		return nil, fmt.Errorf("list recovery sets of %s: %w", m.name, err)
	}
	var out []Set
	for _, one := range signed {
		s, err := decodeSet(one)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		out = append(out, s)
	}
	for _, p := range problems {
		m.log.WarnContext(ctx, "a recovery set is left out", "repository", m.name, "err", p)
	}
	return out, nil
}

// heldSets are the members that one store has in sets, as retention sees them.
func heldSets(sets []Set, store string) []HeldSet {
	var out []HeldSet
	for _, s := range sets {
		for _, x := range s.Members {
			if x.Store == store && !s.Until.IsZero() {
				out = append(out, HeldSet{Mark: s.Mark(), System: x.System, Timeline: x.Point.Timeline, LSN: x.Point.LSN, Until: s.Until})
			}
		}
	}
	return out
}

// sets notes the records whose time is over and of which no store keeps a member any more.
func (p *pruner) goneSets(ctx context.Context, sets []Set) error {
	kept := map[string]bool{}
	judged := map[string]bool{}
	for _, s := range p.out.Stores {
		judged[s.Store] = true
		for _, k := range s.Keep {
			kept[k.Mark] = true
		}
	}
	sizes, err := listNames(ctx, p.m.storage, setPrefix)
	if err != nil {
		return err
	}
	for _, s := range sets {
		over := !s.Until.IsZero() && s.Until.Before(p.now) && !kept[s.Mark()]
		for _, x := range s.Members {
			over = over && judged[x.Store] // another store's points are kept without being asked for
		}
		if over {
			size, _ := sizes.get(setPrefix + s.Name)
			p.goes(setPrefix+s.Name, size)
		}
	}
	return nil
}

// named says whether a restore point belongs to a set.
func (h HeldSet) named(p point) bool {
	return p.mark == h.Mark && strings.HasPrefix(p.mark, SetMark) && p.System == h.System && p.Timeline == h.Timeline
}
