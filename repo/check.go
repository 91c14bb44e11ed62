package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/blob"
	"github.com/zeebo/blake3"
)

// Severity of a finding.
type Severity string

// An error means that something protected cannot be had from this repository; a warning that a person should look.
const (
	SeverityError   Severity = "error"
	SeverityWarning Severity = "warning"
)

// Finding is one thing that is wrong with a repository.
type Finding struct {
	Severity  Severity             `json:"severity"`
	Object    string               `json:"object,omitempty"`
	What      string               `json:"what"`
	Snapshots []relight.SnapshotID `json:"snapshots,omitempty"` // that it touches
	Remains   string               `json:"remains,omitempty"`   // what can still be recovered
}

// Report sums a check up. What was not looked at is in Skipped: it did not pass.
type Report struct {
	Snapshots int                  `json:"snapshots"`
	Packs     int                  `json:"packs"`
	PackBytes int64                `json:"pack_bytes"`
	Chunks    int64                `json:"chunks"` // opened, decoded and matched
	Indexes   int                  `json:"indexes"`
	WAL       int                  `json:"wal_objects"`
	WALBytes  int64                `json:"wal_bytes"` // sealed
	Records   int                  `json:"records"`
	Orphans   int                  `json:"orphan_packs"`   // in no index: left by interrupted backups, harmless
	Unneeded  int                  `json:"unneeded_packs"` // that no snapshot needs: of interrupted backups, of expired snapshots, or of ones whose manifest was removed
	Errors    int                  `json:"errors"`
	Warnings  int                  `json:"warnings"`
	Damaged   []relight.SnapshotID `json:"damaged,omitempty"`
	Untouched []relight.SnapshotID `json:"untouched,omitempty"`
	Skipped   []string             `json:"skipped,omitempty"`
}

// packRemains is what can still be had although a pack is damaged or gone.
const packRemains = "snapshots that do not need it, named at the end; the next backup stores again what it needs of it"

// checking is one check under way. Phases run one after the other.
type checking struct {
	m       *Meta
	r       *Reader // nil without a data identity
	fn      func(Finding)
	rep     Report
	x       *chunkIndex
	mans    []Manifest
	bad     map[packID]string // damaged packs, and what is wrong
	badIDs  map[ChunkID]bool  // damaged chunks that no other pack has
	hurt    map[relight.SnapshotID][]string
	used    map[packID]bool // packs that a snapshot needs
	spoiled []string        // damaged packs that are there
	buf     []byte

	refusedMans []string        // manifests that do not count
	gone        map[string]bool // objects that were deleted
	bare        []string        // objects without their witness
}

// Check looks at everything in the repository: descriptor, keys, indexes, every pack's bytes, manifests, trees and
// maps, WAL, and the records. With r it also opens every chunk and every WAL body. Each finding goes to fn; an
// error means that the check itself could not go on. Damaged packs, and with r damaged snapshots, are put on record where the keys at hand can sign, so that
// the next backup stores again what it has of them.
func (m *Meta) Check(ctx context.Context, r *Reader, fn func(Finding)) (Report, error) {
	c := &checking{m: m, r: r, fn: fn, bad: map[packID]string{}, badIDs: map[ChunkID]bool{}, hurt: map[relight.SnapshotID][]string{}, used: map[packID]bool{}, gone: map[string]bool{}, buf: make([]byte, 256<<10)}
	if r == nil {
		c.rep.Skipped = append(c.rep.Skipped, "content of data packs", "content of WAL bodies")
	}
	for _, phase := range []func(context.Context) error{c.keys, c.indexes, c.packs, c.chunks, c.manifests, c.trees, c.wal, c.records, c.journals, c.objects} {
		if err := phase(ctx); err != nil {
			return c.rep, fmt.Errorf("check %s: %w", m.name, err)
		}
	}
	c.conclude()
	c.remember(ctx)
	c.attest(ctx)
	return c.rep, nil
}

func (c *checking) find(f Finding) {
	if f.Severity == SeverityError {
		c.rep.Errors++
	} else {
		c.rep.Warnings++
	}
	c.fn(f)
}

func (c *checking) keys(ctx context.Context) error {
	d, err := ReadDescriptor(ctx, c.m.storage)
	if err != nil {
		return err
	}
	if err := c.m.keys.matches(c.m.storage, d); err != nil {
		return err
	}
	for _, e := range c.m.keys.Missing() {
		c.find(Finding{Severity: SeverityWarning, Object: fmt.Sprintf("epoch %d", e), What: "the keys at hand do not open this epoch",
			Remains: "what other epochs sealed can be read with these keys"})
	}
	_, problems := c.m.Hosts()
	for _, p := range problems {
		c.find(Finding{Severity: SeverityError, What: p.Error(), Remains: "what other hosts signed"})
	}
	return nil
}

// indexes opens every index object anew, without the local cache.
func (c *checking) indexes(ctx context.Context) error {
	c.x = newChunkIndex(c.m.storage, c.m.keys.openMeta, nil)
	if err := c.x.refresh(ctx); err != nil {
		return err
	}
	c.rep.Indexes = len(c.x.st.objects)
	for _, name := range slices.Sorted(maps.Keys(c.x.broken)) {
		c.find(Finding{Severity: SeverityError, Object: name, What: c.x.broken[name].Error(),
			Remains: "snapshots whose chunks other indexes name; the next backup stores again what is missing"})
	}
	for i, p := range c.x.st.packs {
		if !c.x.there[i] {
			c.bad[p.id] = "it is missing, or has another size than its index says"
			c.find(Finding{Severity: SeverityError, Object: p.name(), What: c.bad[p.id], Remains: packRemains})
		}
	}
	return nil
}

// packs reads every pack and holds its bytes against its name; no key is needed for that.
func (c *checking) packs(ctx context.Context) error {
	var all []blob.Info
	if err := c.m.storage.List(ctx, "pack/", func(i blob.Info) error { all = append(all, i); return nil }); err != nil {
		return err
	}
	for _, i := range all {
		id, ok := packFromName(i.Name)
		if !ok {
			c.find(Finding{Severity: SeverityWarning, Object: i.Name, What: "no pack has such a name"})
			continue
		}
		if _, indexed := c.x.rows[id]; !indexed {
			c.rep.Orphans++
		}
		c.rep.Packs++
		c.rep.PackBytes += i.Size
		sum, err := c.digest(ctx, i.Name)
		if err != nil && !errors.Is(err, blob.ErrNotFound) { // retention may take a pack meanwhile; an indexed one is found below
			return fmt.Errorf("read %s: %w", i.Name, err)
		}
		if err != nil || packID(sum) != id {
			c.bad[id] = "its bytes do not match its name"
			if err != nil {
				c.bad[id] = "it vanished while it was read"
			} else {
				c.spoiled = append(c.spoiled, i.Name)
			}
			c.find(Finding{Severity: SeverityError, Object: i.Name, What: c.bad[id], Remains: packRemains})
		}
	}
	return nil
}

func (c *checking) digest(ctx context.Context, name string) (sum [32]byte, err error) {
	rc, err := c.m.storage.Get(ctx, name, 0, -1)
	if err != nil {
		return sum, err
	}
	h := blake3.New()
	_, err = io.CopyBuffer(h, struct{ io.Reader }{rc}, c.buf)
	h.Sum(sum[:0])
	return sum, errors.Join(err, rc.Close())
}

// chunks opens every chunk that an index names, in the order of the packs: metadata always, data with r.
func (c *checking) chunks(ctx context.Context) error {
	places := newPlaces(c.x)
	sorter := newRowSorter(c.m.cachePath(), placeSize, verifySort)
	defer sorter.close()
	for _, run := range c.x.st.runs {
		src := newRowSource(run.f, run.count*recordSize, recordSize)
		for {
			ok, err := src.next()
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			rec := decodeRecord(src.row)
			pack := c.x.st.packs[rec.pack]
			if c.bad[pack.id] != "" && !c.x.there[rec.pack] || c.r == nil && pack.kind == dataPack {
				continue
			}
			if err := sorter.add(places.row(rec.id, location{pack: pack, off: rec.off, frame: rec.frame, plain: rec.plain})); err != nil {
				return err
			}
		}
	}
	return c.readChunks(ctx, places, sorter)
}

func (c *checking) readChunks(ctx context.Context, places *places, sorter *rowSorter) error {
	lost := map[string]int{}
	err := readPlaces(ctx, c.m, places, sorter, 1, func(ctx context.Context, r *chunkReader, w want, damaged error) error {
		if damaged == nil {
			c.rep.Chunks++
			return nil
		}
		lost[w.at.pack.name()]++
		_, err := r.elsewhere(ctx, w, damaged)
		if errors.Is(err, ErrCorrupt) && len(c.badIDs) < maxDamage {
			c.badIDs[w.id] = true
		}
		if errors.Is(err, ErrCorrupt) {
			return nil
		}
		return err
	})
	for _, name := range slices.Sorted(maps.Keys(lost)) {
		c.spoiled = append(c.spoiled, name)
		c.find(Finding{Severity: SeverityError, Object: name, What: fmt.Sprintf("%d of its chunks do not open or do not match their ids", lost[name]),
			Remains: "its other chunks, and the snapshots named at the end; the next backup stores again what it needs of it"})
	}
	return err
}

func (c *checking) manifests(ctx context.Context) error {
	signed, problems, err := c.m.listSigned(ctx, manifestKind, snapPrefix)
	if err != nil {
		return err
	}
	fenced, err := c.m.fences(ctx)
	if err != nil {
		return err
	}
	for _, s := range signed {
		man, err := decodeManifest(s)
		if err == nil && fenced[man.ID] {
			if err = c.m.counts(ctx, man); errors.Is(err, ErrRefused) {
				continue // retention removes it
			}
		}
		if err != nil {
			problems = append(problems, err)
			continue
		}
		c.mans = append(c.mans, man)
	}
	for _, p := range problems {
		c.refusedMans = append(c.refusedMans, objectOf(p))
		c.find(Finding{Severity: SeverityError, Object: objectOf(p), What: p.Error(), Remains: "the store's other snapshots, each restorable by itself"})
	}
	c.rep.Snapshots = len(c.mans)
	return nil
}

// trees looks up all that the snapshots need.
func (c *checking) trees(ctx context.Context) error {
	whole, err := c.whole(ctx)
	if whole || err != nil {
		return err
	}
	for _, man := range c.mans {
		err := c.tree(ctx, man)
		if err == nil {
			continue
		}
		if !errors.Is(err, ErrCorrupt) && !errors.Is(err, errMap) && !errors.Is(err, errEntry) {
			return err
		}
		c.touch(man.ID, err.Error())
	}
	return nil
}

// whole says that all that the snapshots need is there, where nothing was found damaged so far: then what they share is walked once.
func (c *checking) whole(ctx context.Context) (bool, error) {
	if len(c.bad)+len(c.badIDs) > 0 {
		return false, nil
	}
	k, err := newMarker(c.m, c.x, nil)
	if err != nil {
		return false, err
	}
	for _, man := range c.mans {
		if err := k.snapshot(ctx, man); err != nil || k.lost > 0 {
			if isDamage(err) {
				err = nil
			}
			return false, err
		}
	}
	for i, p := range c.x.st.packs {
		if k.used[i] > 0 {
			c.used[p.id] = true
		}
	}
	return true, nil
}

// tree walks one snapshot, and names the files that lack something.
func (c *checking) tree(ctx context.Context, man Manifest) error {
	r, err := newChunkReader(c.m.storage, c.m.keys, c.x)
	if err != nil {
		return err
	}
	for _, id := range man.Tree {
		if c.lost(id) {
			c.touch(man.ID, "its tree needs chunk "+id.String())
		}
	}
	load := func(ctx context.Context, id ChunkID) ([]byte, error) {
		c.lost(id) // notes its pack
		return r.load(ctx, id)
	}
	n := int64(0)
	err = eachLine(&treeReader{ctx: ctx, load: load, ids: man.Tree}, func(e Entry, _ []byte) error {
		n++
		slots := newSlotCursor(e, load)
		for {
			slot, ok, err := slots.next(ctx)
			if errors.Is(err, ErrCorrupt) || errors.Is(err, errMap) {
				c.touch(man.ID, e.Path+": "+err.Error())
				return nil
			}
			if err != nil {
				return err
			}
			if !ok {
				return nil
			}
			if slot.chunks(c.needs) != nil {
				c.touch(man.ID, e.Path)
				return nil
			}
		}
	})
	if err == nil && n != man.Entries {
		err = fmt.Errorf("%w: %d entries instead of %d", errEntry, n, man.Entries)
	}
	return err
}

// needs is an error where a chunk is lost, or too short for what a slot takes from it.
func (c *checking) needs(id ChunkID, least int) error {
	if c.lost(id) {
		return errNoChunk
	}
	if least == 0 {
		return nil
	}
	if at, err := c.x.find(id); err != nil || int(at.plain) < least {
		return errMap
	}
	return nil
}

// lost says that a chunk cannot be read, as far as this check has seen.
func (c *checking) lost(id ChunkID) bool {
	at, err := c.x.findWhere(id, func(l location) bool { return c.bad[l.pack.id] == "" })
	if isAbsent(err) { // only a damaged pack has it, of which other chunks may be whole
		at, err = c.x.find(id)
	}
	if err == nil {
		c.used[at.pack.id] = true
	}
	if err != nil || c.badIDs[id] {
		return true
	}
	// Unopened content of a damaged pack counts as lost: it could not be looked at.
	return c.r == nil && at.pack.kind == dataPack && c.bad[at.pack.id] != ""
}

func (c *checking) touch(id relight.SnapshotID, what string) {
	if len(c.hurt[id]) < 20 {
		c.hurt[id] = append(c.hurt[id], what)
	}
}

// records verifies the signatures of everything else.
func (c *checking) records(ctx context.Context) error {
	for _, k := range []struct{ kind, prefix string }{
		{checkedKind, checkedPrefix}, {"proof", "proof/"}, {"pending", "pending/"}, {setKind, setPrefix}, {damagedKind, damagedPrefix}, {witnessKind, witnessPrefix},
	} {
		signed, problems, err := c.m.listSigned(ctx, k.kind, k.prefix)
		if err != nil {
			return err
		}
		c.rep.Records += len(signed)
		for _, p := range problems {
			c.find(Finding{Severity: SeverityWarning, Object: objectOf(p), What: p.Error(), Remains: "the data itself; the record does not count"})
		}
	}
	return nil
}

// conclude names, for each damaged snapshot, what it lost, and which snapshots are untouched.
func (c *checking) conclude() {
	for _, man := range c.mans {
		if c.hurt[man.ID] == nil {
			c.rep.Untouched = append(c.rep.Untouched, man.ID)
		} else {
			c.rep.Damaged = append(c.rep.Damaged, man.ID)
		}
	}
	for i, p := range c.x.st.packs {
		if c.x.there[i] && !c.used[p.id] {
			c.rep.Unneeded++
		}
	}
	for _, id := range c.rep.Damaged {
		remains := "its other files"
		if n := len(c.rep.Untouched); n > 0 {
			remains += fmt.Sprintf("; %d snapshots are untouched, the newest is %s", n, c.rep.Untouched[n-1])
		}
		c.find(Finding{Severity: SeverityError, Object: string(id), What: "the snapshot cannot be restored whole: " + strings.Join(c.hurt[id], ", "),
			Snapshots: []relight.SnapshotID{id}, Remains: remains})
	}
}

// remember puts what was found on record: damaged packs, and snapshots whose content was read and is not whole.
func (c *checking) remember(ctx context.Context) {
	c.m.noteDamaged(ctx, c.spoiled)
	if c.r == nil || !c.m.keys.CanWrite() {
		return
	}
	for _, man := range c.mans {
		if c.hurt[man.ID] == nil {
			continue
		}
		if err := c.damaged(ctx, man); err != nil {
			c.m.log.WarnContext(ctx, "what the check found is not recorded", "snapshot", man.ID, "err", err)
		}
	}
}

// damaged records that a snapshot is damaged, once.
func (c *checking) damaged(ctx context.Context, man Manifest) error {
	states, err := c.m.states(ctx, man.Store, string(man.ID)+"/")
	if err != nil || states.damaged(man.ID) {
		return err
	}
	return c.m.PutChecked(ctx, Checked{Store: man.Store, Snapshot: man.ID, At: c.m.now(), Damage: c.spoiled})
}

// objectOf is the object that an error names, for a finding's first column.
func objectOf(err error) string {
	words := strings.Fields(err.Error())
	if i := slices.Index(words, "object"); i >= 0 && i+1 < len(words) {
		return strings.Trim(words[i+1], ":,")
	}
	return ""
}
