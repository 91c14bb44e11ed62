package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/toolboxai/relight/journal"
	"github.com/toolboxai/relight/repo"
)

// JournalReport is the verification of one journal.
type JournalReport struct {
	Repository string `json:"repository,omitempty"` // where its segments were read; "" is the journal on this host
	journal.Report
}

// VerifyJournals verifies this host's journal against the anchors in every repository, and then, from their segments, the other journals that the
// repositories hold: those of a host that was lost, and of other hosts. The first report is of this host's.
func (a *App) VerifyJournals(ctx context.Context) ([]JournalReport, error) {
	e, err := a.Estate()
	if err != nil {
		return nil, err
	}
	j, err := a.Journal(ctx)
	if err != nil {
		return nil, err
	}
	v := &verification{own: j.ID()}
	for _, name := range slices.Sorted(maps.Keys(e.Repositories)) {
		m, err := a.Repository(ctx, name)
		if err == nil {
			err = v.repository(ctx, name, m)
		}
		if err != nil {
			v.notes = append(v.notes, fmt.Sprintf("repository %s was not asked: %v", name, err))
		}
	}
	if len(v.trust.Keys) == 0 {
		public, err := publicKey(e)
		if err != nil {
			return nil, err
		}
		v.trust.Keys = []journal.Key{{Host: j.Host(), Public: public}}
		v.notes = append(v.notes, "no repository holds an anchor: the journal is verified against this host's own key only, which proves nothing against who holds this host")
	}
	r, err := j.Verify(ctx, v.trust)
	if err != nil {
		return nil, err
	}
	own := JournalReport{Report: r}
	own.Notes = append(v.notes, own.Notes...)
	for _, p := range v.problems {
		own.find(p)
	}
	return append([]JournalReport{own}, v.others...), nil
}

// find adds what is wrong beside the events themselves.
func (r *JournalReport) find(detail string) {
	r.Findings = append(r.Findings, journal.Finding{Detail: detail})
	r.Found++
}

// verification gathers what this host's journal is held against, and verifies the others on the way.
type verification struct {
	own      string // id of this host's journal
	trust    journal.Trust
	notes    []string
	problems []string
	others   []JournalReport
}

func (v *verification) repository(ctx context.Context, name string, m *repo.Meta) error {
	ids, err := m.Journals(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := v.journal(ctx, name, m, id); err != nil {
			return err
		}
	}
	return nil
}

// journal takes up one journal of a repository. What is refused or damaged there is a finding: else whoever can add an object could switch the anchors off.
func (v *verification) journal(ctx context.Context, name string, m *repo.Meta, id repo.JournalID) error {
	mine := id.Host == m.Keyring().Host()
	t, err := trustIn(ctx, m, id)
	if spoilt(err) && mine && id.Journal == v.own {
		v.problems = append(v.problems, fmt.Sprintf("repository %s: %v", name, err))
		return nil
	}
	if err != nil && !spoilt(err) {
		return err
	}
	if mine {
		v.trust.Anchors = append(v.trust.Anchors, t.Anchors...)
		v.trust.Keys = append(v.trust.Keys, t.Keys...)
		if id.Journal == v.own {
			return nil
		}
		v.trust.Elsewhere = append(v.trust.Elsewhere, id.Journal)
	}
	r, serr := verifyShipped(ctx, m, id, t)
	if serr != nil && !spoilt(serr) {
		return serr
	}
	r.Repository = name
	for _, e := range []error{err, serr} {
		if e != nil {
			r.find(e.Error())
		}
	}
	v.others = append(v.others, r)
	return nil
}

// errUnreadable says that a stored segment is none.
var errUnreadable = errors.New("cannot be read")

func spoilt(err error) bool {
	return errors.Is(err, repo.ErrRefused) || errors.Is(err, repo.ErrCorrupt) || errors.Is(err, errUnreadable)
}

// trustIn gives a journal's anchors in one repository, with the keys that the host which signed the records vouched for.
func trustIn(ctx context.Context, m *repo.Meta, id repo.JournalID) (journal.Trust, error) {
	anchors, err := m.Anchors(ctx, id)
	if err != nil {
		return journal.Trust{}, err
	}
	var t journal.Trust
	for _, a := range anchors {
		var head journal.Anchor
		if err := json.Unmarshal(a.Head, &head); err != nil {
			return journal.Trust{}, fmt.Errorf("anchor %d of journal %s %w: %w", a.Seq, id.Journal, errUnreadable, err)
		}
		t.Anchors = append(t.Anchors, head)
		if !slices.ContainsFunc(t.Keys, func(k journal.Key) bool { return k.Public.Equal(a.Public) && k.Host == head.Host }) {
			t.Keys = append(t.Keys, journal.Key{Host: head.Host, Public: a.Public})
		}
	}
	return t, nil
}

// verifyShipped verifies a journal from what a repository holds of it.
func verifyShipped(ctx context.Context, m *repo.Meta, id repo.JournalID, t journal.Trust) (JournalReport, error) {
	r := JournalReport{Report: journal.Report{Journal: id.Journal, Host: id.Host}}
	v, segments := journal.NewVerification(t), 0
	err := m.Journal(ctx, id, func(s repo.JournalSegment) error {
		segments++
		if err := v.Add(bytes.NewReader(s.Data)); err != nil {
			return fmt.Errorf("events %d to %d of journal %s %w: %w", s.First, s.Last, id.Journal, errUnreadable, err)
		}
		return nil
	})
	if err != nil {
		return r, err
	}
	if segments > 0 {
		r.Report, err = v.Report()
		return r, err
	}
	if n := len(t.Anchors); n > 0 && t.Anchors[n-1].Seq > 0 {
		r.find(fmt.Sprintf("it is anchored up to event %d and no segment of it is here", t.Anchors[n-1].Seq))
	}
	return r, nil
}
