package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/toolboxai/relight/blob"
)

// objects looks at every name there is, and verifies what no other phase reads: the records of keys, of WAL, of retention and of leases.
func (c *checking) objects(ctx context.Context) error {
	small := map[string][]string{} // by kind: few and small, and read one by one
	wanted := []string{"proof", checkedKind, "wrapping", "epoch", "recipient", "revocation", "tested", "cluster", "gap", "coverage", "expired", "estate", "fence", "trash", "trashed manifest", "lease", "beat"}
	seen := listed{at: map[string]time.Time{}, expired: map[string]bool{}}
	err := c.m.storage.List(ctx, "", func(i blob.Info) error {
		kind := kindOf(i.Name)
		seen.newest = later(seen.newest, i.Modified)
		if kind == witnessKind || kind == "lease" || kind == "beat" || witnessed(i.Name) {
			seen.at[i.Name] = i.Modified
		}
		if kind == "trashed manifest" {
			seen.expired[formerName(i.Name)] = true
		}
		if kind == "" && !strings.HasPrefix(i.Name, "pack/") && !strings.HasPrefix(i.Name, journalPrefix) { // their phases name these
			c.find(Finding{Severity: SeverityWarning, Object: i.Name, What: "no object of a repository has such a name", Remains: "everything: nothing reads it"})
		}
		if slices.Contains(wanted, kind) {
			small[kind] = append(small[kind], i.Name)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list everything: %w", notAbsent(err))
	}
	if err := c.keyRecords(ctx, small); err != nil {
		return err
	}
	if err := c.witnesses(ctx, seen); err != nil {
		return err
	}
	if err := c.marks(ctx, small["trash"]); err != nil {
		return err
	}
	if err := c.leases(ctx, seen); err != nil {
		return err
	}
	if err := c.widows(ctx, append(small["proof"], small[checkedKind]...), small["trashed manifest"]); err != nil {
		return err
	}
	if c.r == nil {
		c.rep.Skipped = append(c.rep.Skipped, "estate bundles")
		delete(small, "estate")
	}
	for _, kind := range wanted[7:] {
		for _, name := range small[kind] {
			if err := c.record(ctx, kind, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// widows finds evidence of snapshots that are not here, neither expired nor refused: their manifests were removed.
func (c *checking) widows(ctx context.Context, evidence, trashed []string) error {
	known := map[string]bool{}
	for _, man := range c.mans {
		known[man.Store+"/"+string(man.ID)] = true
	}
	for _, name := range c.refusedMans {
		known[strings.TrimPrefix(name, snapPrefix)] = true
	}
	for _, name := range trashed {
		_, snap, _ := strings.Cut(name, trashSnaps)
		known[snap] = true
	}
	for name := range c.gone {
		known[strings.TrimPrefix(name, snapPrefix)] = true
	}
	for _, name := range evidence {
		e := strings.Split(name, "/")
		if len(e) != 4 || known[e[1]+"/"+e[2]] {
			continue
		}
		known[e[1]+"/"+e[2]] = true // once is enough
		_, err := c.m.storage.Stat(ctx, snapPrefix+e[1]+"/"+e[2])
		if err == nil { // committed since the manifests were read
			continue
		}
		if !errors.Is(err, blob.ErrNotFound) {
			return fmt.Errorf("look for the manifest that %s tells of: %w", name, err)
		}
		c.find(Finding{Severity: SeverityWarning, Object: snapPrefix + e[1] + "/" + e[2], What: "the manifest is not there, although " + name + " tells of the snapshot",
			Remains: "the store's other snapshots; put back from a mirror, the manifest brings the snapshot back while its packs are there"})
	}
	return nil
}

// remainsWithout says what can still be had although a record of a kind does not count.
func remainsWithout(kind string) string {
	switch kind {
	case "cluster":
		return "every point that is there; no more WAL is taken for this store before the record is put back, from a mirror, or the cluster adopted anew"
	case "gap":
		return "every point outside of the range that its name gives"
	case "coverage":
		return "every point; how much a recovery lost is reported from the last commit until the record is replaced"
	case "expired":
		return "every point that is kept; the WAL that retention removed there is reported as a hole"
	case "estate":
		return "the stores' data, and the estate as its other bundles have it; the next change of the estate stores a new one"
	case "fence":
		return "every snapshot; whether the backup that was given up still counts is decided without the fence"
	case "trash", "trashed manifest":
		return "every snapshot; retention removes nothing because of this object and marks anew"
	case "lease", "beat":
		return "everything; who takes the lease next waits until it is certain that nobody renews it"
	}
	return "the data itself; the record does not count"
}

// record verifies one signed object.
func (c *checking) record(ctx context.Context, kind, name string) error {
	err := c.m.verifyRecord(ctx, c.r, kind, name)
	switch {
	case err == nil:
		c.rep.Records++
		return nil
	case errors.Is(err, blob.ErrNotFound): // retention, or a holder of a lease, cleared it away meanwhile
		return nil
	case !errors.Is(err, ErrRefused) && !errors.Is(err, ErrCorrupt):
		return err
	}
	severity := SeverityWarning
	if kind == "estate" || kind == "cluster" {
		severity = SeverityError
	}
	c.find(Finding{Severity: severity, Object: name, What: err.Error(), Remains: remainsWithout(kind)})
	return nil
}

func (m *Meta) verifyRecord(ctx context.Context, r *Reader, kind, name string) error {
	switch kind {
	case "estate":
		_, err := m.Estate(ctx, r, name)
		return err
	case "trashed manifest":
		return m.verifyTrashed(ctx, name)
	case "expired":
		_, err := m.expiredRecord(ctx, name)
		return err
	case "coverage":
		kind = "beat"
	case "fence":
		kind = "pending"
	}
	s, err := m.getVerified(ctx, kind, name)
	if err == nil && kind == "trash" {
		err = m.mayRetain(s)
	}
	return err
}

// verifyTrashed verifies the copy of an expired manifest, which is signed as what it was.
func (m *Meta) verifyTrashed(ctx context.Context, name string) error {
	raw, err := getAll(ctx, m.storage, name, maxSigned+maxSigned/8)
	if err != nil {
		return fmt.Errorf("get %s: %w", name, err)
	}
	b, err := m.openBytes(name, raw, sealedMeta)
	if err != nil {
		return err
	}
	former := formerName(name)
	s, err := parseEnvelope(b, manifestKind, former)
	if err == nil {
		_, err = m.verifySigner(ctx, s)
	}
	if err == nil {
		return nil
	}
	for _, known := range []error{ErrRefused, ErrCorrupt} {
		if errors.Is(err, known) {
			return fmt.Errorf("object %s is a copy that does not count: %w", name, err)
		}
	}
	return err
}

// keyRecords verifies what lies under keys/, and that every recovery recipient opens every epoch that it should.
func (c *checking) keyRecords(ctx context.Context, small map[string][]string) error {
	const remains = "what the keys at hand open; put the object back from a mirror"
	for _, p := range c.m.keys.problems {
		c.find(Finding{Severity: SeverityError, Object: objectOf(p), What: p.Error(), Remains: "what other wrapped keys open: relight key list shows the recipients"})
	}
	for _, kind := range []string{"epoch", "recipient", "revocation", "tested"} {
		for _, name := range small[kind] {
			err := c.m.getAuthority(ctx, kind, name, nil)
			if err == nil {
				c.rep.Records++
				continue
			}
			if !errors.Is(err, ErrRefused) && !errors.Is(err, ErrCorrupt) {
				return err
			}
			f := Finding{Severity: SeverityWarning, Object: name, What: err.Error(), Remains: remains}
			switch kind {
			case "revocation":
				f.Severity, f.Remains = SeverityError, "what other hosts signed: a revocation that cannot be verified revokes all that its host signed"
			case "tested":
				f.Remains = "everything; test the offline key again: relight repo key-test"
			}
			c.find(f)
		}
	}
	return c.wrappings(ctx, small["wrapping"], small["recipient"])
}

// wrappings holds the names of the wrapped keys against the epochs and the recipients on record. Whether one opens only its own identity tells.
func (c *checking) wrappings(ctx context.Context, names, recorded []string) error {
	records, err := readEpochs(ctx, c.m.storage, c.m.desc)
	if err != nil {
		return err
	}
	rs, err := c.m.Recipients(ctx)
	if err != nil {
		return err
	}
	there, named := map[string]bool{}, map[string]bool{}
	for _, name := range recorded {
		named[lastElement(name, "-")] = true
	}
	for _, name := range names {
		n, ok := wrapEpochOf(name)
		if !ok {
			c.find(Finding{Severity: SeverityWarning, Object: name, What: "no wrapped key has such a name", Remains: "everything: nothing reads it"})
			continue
		}
		base := name[:max(0, strings.LastIndexByte(name, '-'))]
		there[base] = true
		if !named[lastElement(base, "/")] {
			c.find(Finding{Severity: SeverityWarning, Object: name, What: "no record under " + recipientPrefix + " names the recipient that it was sealed to",
				Remains: "everything; put the record back from a mirror, or add the recipient again. An interrupted init leaves such objects too"})
		}
		if _, known := records[n]; !known && !there["epoch "+strconv.Itoa(n)] {
			there["epoch "+strconv.Itoa(n)] = true
			c.find(Finding{Severity: SeverityWarning, Object: epochName(c.m.desc.ID, n), What: fmt.Sprintf("epoch %d has wrapped keys and no record that counts", n),
				Remains: "everything that other epochs sealed, and what this one sealed while its wrapped keys are there"})
		}
	}
	opened := len(c.m.keys.opened)
	for _, r := range rs {
		for n := range records {
			want := fmt.Sprintf("%s%d/%s", wrapPrefix, n, recipientID(c.m.desc.ID, r))
			if !there[want] {
				c.find(Finding{Severity: SeverityError, Object: want, What: fmt.Sprintf("recipient %.24s… has no wrapped key of epoch %d", r, n),
					Remains: "what other recipients open; with one of them, relight key rotate seals what is written from then on to all"})
			}
		}
	}
	if opened < len(rs) {
		c.rep.Skipped = append(c.rep.Skipped, fmt.Sprintf("wrapped keys of %d recovery recipients, whose identities are not at hand", len(rs)-opened))
	}
	return nil
}
