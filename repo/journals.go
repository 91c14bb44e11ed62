package repo

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/toolboxai/relight/blob"
)

const journalPrefix = "journal/"

// JournalID names one journal. A host whose journal was lost begins another one, with a new id and again at event 1.
type JournalID struct {
	Host    string `json:"host"` // enrolled name of the host that keeps it
	Journal string `json:"journal"`
}

func (j JournalID) prefix() string { return journalPrefix + j.Host + "/" + j.Journal + "/" }

func (j JournalID) anchors() string { return j.prefix() + "anchor/" }

func (j JournalID) check() error {
	if err := validElement("host", j.Host); err != nil {
		return err
	}
	return validElement("journal", j.Journal)
}

// Anchor is the head of a journal at a moment: what comes before cannot be changed unnoticed.
type Anchor struct {
	JournalID
	Seq    int64             `json:"seq"`
	Hash   string            `json:"hash"`
	At     time.Time         `json:"at"`
	Public ed25519.PublicKey `json:"public,omitempty"` // the key that signs the journal; the host's signature of this record vouches for it
	Head   json.RawMessage   `json:"head,omitempty"`   // the head as the journal signed it itself (docs/journal.md)
}

func (a Anchor) name() string { return fmt.Sprintf("%s%016d", a.anchors(), a.Seq) }

// PutAnchor anchors this host's journal. The same head may be anchored again; another hash at the same
// sequence number is ErrConflict, and means that the journal was rewritten.
func (m *Meta) PutAnchor(ctx context.Context, a Anchor) error {
	if err := a.check(); err != nil {
		return err
	}
	err := m.PutRecord(ctx, "anchor", a.name(), a)
	if !errors.Is(err, blob.ErrExists) {
		return err
	}
	var there Anchor
	if _, gerr := m.getSigned(ctx, "anchor", a.name(), &there); gerr != nil {
		return gerr
	}
	if there.Hash == a.Hash {
		return nil
	}
	return fmt.Errorf("anchor journal of %s: %w: event %d was anchored as %.16s and is now %.16s", a.Host, ErrConflict, a.Seq, there.Hash, a.Hash)
}

// Anchors lists the anchors of a journal in order. Only the host itself, or the recovery side, may have
// signed them.
func (m *Meta) Anchors(ctx context.Context, j JournalID) ([]Anchor, error) {
	if err := j.check(); err != nil {
		return nil, err
	}
	var out []Anchor
	err := m.Records(ctx, "anchor", j.anchors(), func(s Signed) error {
		a, err := anchorOf(s)
		out = append(out, a)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func anchorOf(s Signed) (Anchor, error) {
	var a Anchor
	if err := s.decode(&a); err != nil {
		return Anchor{}, err
	}
	if a.name() != s.Name {
		return Anchor{}, refused(s.Name, "it anchors event %d of journal %s of host %s", a.Seq, a.Journal, a.Host)
	}
	return a, ownJournal(s, a.Host)
}

// JournalSegment is a stretch of a journal, as the journal writes it.
type JournalSegment struct {
	JournalID
	First int64  `json:"first"`
	Last  int64  `json:"last"`
	Data  []byte `json:"data"`
}

func (j JournalSegment) name() string {
	return fmt.Sprintf("%s%016d-%016d", j.prefix(), j.First, j.Last)
}

// PutJournal stores a stretch of this host's journal.
func (m *Meta) PutJournal(ctx context.Context, j JournalSegment) error {
	if err := j.check(); err != nil {
		return err
	}
	if j.First < 1 || j.First > j.Last {
		return fmt.Errorf("put journal of %s: events %d to %d are none", j.Host, j.First, j.Last)
	}
	return m.PutRecord(ctx, "journal", j.name(), j)
}

// Journal reports the stretches of a journal in order and without overlap. Where one is missing, the next one
// that is there follows.
func (m *Meta) Journal(ctx context.Context, j JournalID, fn func(JournalSegment) error) error {
	all, err := m.segments(ctx, j)
	if err != nil {
		return err
	}
	var found []string
	for _, s := range chainOf(all) {
		found = append(found, s.name())
	}
	return m.readRecords(ctx, "journal", found, func(s Signed) error {
		segment, err := segmentOf(s)
		if err != nil {
			return err
		}
		return fn(segment)
	})
}

// JournalEnd is the number of the last event of a journal that the repository holds; 0 when it holds none.
func (m *Meta) JournalEnd(ctx context.Context, j JournalID) (int64, error) {
	all, err := m.segments(ctx, j)
	last := int64(0)
	for _, s := range all {
		last = max(last, s.Last)
	}
	return last, err
}

// segments lists a journal's stretches by their names.
func (m *Meta) segments(ctx context.Context, j JournalID) ([]JournalSegment, error) {
	if err := j.check(); err != nil {
		return nil, err
	}
	var out []JournalSegment
	err := m.storage.List(ctx, j.prefix(), func(i blob.Info) error {
		if s, ok := parseJournalName(i.Name); ok && s.Last > 0 {
			out = append(out, s)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list journal of %s: %w", j.Host, notAbsent(err))
	}
	return out, nil
}

// chainOf picks from the stretches, some of which two processes may have written at the same time, those that
// follow one another. Each began behind the end of one that was there, so going back from the last one finds them.
func chainOf(all []JournalSegment) []JournalSegment {
	slices.SortFunc(all, func(a, b JournalSegment) int {
		return cmp.Or(cmp.Compare(b.Last, a.Last), cmp.Compare(a.First, b.First))
	})
	var chain []JournalSegment
	for _, s := range all {
		if len(chain) == 0 || s.Last < chain[len(chain)-1].First {
			chain = append(chain, s)
		}
	}
	slices.Reverse(chain)
	return chain
}

func segmentOf(s Signed) (JournalSegment, error) {
	var j JournalSegment
	if err := s.decode(&j); err != nil {
		return JournalSegment{}, err
	}
	if j.name() != s.Name {
		return JournalSegment{}, refused(s.Name, "it holds events %d to %d of journal %s of host %s", j.First, j.Last, j.Journal, j.Host)
	}
	return j, ownJournal(s, j.Host)
}

func ownJournal(s Signed, host string) error {
	if s.Signer != host && s.Signer != recoverySigner {
		return refused(s.Name, "host %s signed in the journal of host %s", s.Signer, host)
	}
	return nil
}

// Journals lists the journals that the repository holds anything of, by host and id.
func (m *Meta) Journals(ctx context.Context) ([]JournalID, error) {
	var out []JournalID
	err := m.storage.List(ctx, journalPrefix, func(i blob.Info) error {
		if s, ok := parseJournalName(i.Name); ok && !slices.Contains(out, s.JournalID) {
			out = append(out, s.JournalID)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list journals: %w", notAbsent(err))
	}
	return out, nil
}

// parseJournalName reads the name of a stretch, or of an anchor, for which First and Last are 0.
func parseJournalName(name string) (JournalSegment, bool) {
	e := strings.Split(name, "/")
	if len(e) < 4 || e[0]+"/" != journalPrefix {
		return JournalSegment{}, false
	}
	s := JournalSegment{JournalID: JournalID{Host: e[1], Journal: e[2]}}
	if len(e) == 5 {
		seq, err := strconv.ParseInt(e[4], 10, 64)
		return s, err == nil && Anchor{JournalID: s.JournalID, Seq: seq}.name() == name
	}
	first, last, _ := strings.Cut(e[3], "-")
	var err, lerr error
	s.First, err = strconv.ParseInt(first, 10, 64)
	s.Last, lerr = strconv.ParseInt(last, 10, 64)
	return s, errors.Join(err, lerr) == nil && s.First > 0 && s.First <= s.Last && s.name() == name
}

// journals verifies every anchor and every stretch of every journal.
func (c *checking) journals(ctx context.Context) error {
	var names []string
	err := c.m.storage.List(ctx, journalPrefix, func(i blob.Info) error { names = append(names, i.Name); return nil })
	if err != nil {
		return err
	}
	err = inOrder(ctx, c.m.o.Workers, names, c.m.checkJournalObject, func(j journalObject) error {
		if j.problem == nil {
			c.rep.Records++
			return nil
		}
		c.find(Finding{Severity: SeverityWarning, Object: j.name, What: j.problem.Error(), Remains: remainsOfJournal})
		return nil
	})
	if err != nil {
		return err
	}
	return c.journalHoles(names)
}

const remainsOfJournal = "the data itself, and what other records say of the journal"

// journalHoles finds stretches that are not there: before others, or before what an anchor covers.
func (c *checking) journalHoles(names []string) error {
	stretches, anchored := map[JournalID][]JournalSegment{}, map[JournalID]int64{}
	for _, name := range names {
		s, ok := parseJournalName(name)
		switch {
		case ok && s.Last > 0:
			stretches[s.JournalID] = append(stretches[s.JournalID], s)
		case ok:
			seq, err := strconv.ParseInt(lastElement(name, "/"), 10, 64)
			if err != nil {
				return fmt.Errorf("anchor %s: %w", name, err)
			}
			anchored[s.JournalID] = max(anchored[s.JournalID], seq)
		}
	}
	missing := func(j JournalID, from, to int64) {
		c.find(Finding{Severity: SeverityWarning, Object: j.prefix(), What: fmt.Sprintf("events %d to %d of the journal are not there", from, to), Remains: remainsOfJournal})
	}
	for j, all := range stretches {
		next := int64(1)
		for _, s := range chainOf(all) {
			if s.First > next {
				missing(j, next, s.First-1)
			}
			next = s.Last + 1
		}
		if anchored[j] >= next {
			missing(j, next, anchored[j])
		}
		delete(anchored, j)
	}
	for j, seq := range anchored {
		missing(j, 1, seq)
	}
	return nil
}

// journalObject is an anchor or a stretch, and why it does not count.
type journalObject struct {
	name    string
	problem error
}

// checkJournalObject fails only where the storage does.
func (m *Meta) checkJournalObject(ctx context.Context, name string) (journalObject, error) {
	err := m.readJournalObject(ctx, name)
	if err == nil || errors.Is(err, ErrRefused) || errors.Is(err, ErrCorrupt) {
		return journalObject{name: name, problem: err}, nil
	}
	return journalObject{}, err
}

func (m *Meta) readJournalObject(ctx context.Context, name string) error {
	id, ok := parseJournalName(name)
	if !ok {
		return refused(name, "no journal has an object of such a name")
	}
	kind := "journal"
	if id.Last == 0 {
		kind = "anchor"
	}
	s, err := m.getVerified(ctx, kind, name)
	if err != nil {
		return err
	}
	if kind == "anchor" {
		_, err = anchorOf(s)
	} else {
		_, err = segmentOf(s)
	}
	return err
}
