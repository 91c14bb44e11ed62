package repo

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// listed is what the check has seen of the objects that are few, and when the storage received them.
type listed struct {
	at      map[string]time.Time
	newest  time.Time       // of everything
	expired map[string]bool // manifests of which a copy lies in the trash
}

// old says that whoever stored an object had the time to store what belongs to it.
func (l listed) old(name string, since time.Duration) bool { return l.newest.Sub(l.at[name]) >= since }

// witnesses finds objects that were deleted, and those whose witness is not there.
func (c *checking) witnesses(ctx context.Context, l listed) error {
	var bare []string
	some := false
	for _, name := range slices.Sorted(maps.Keys(l.at)) {
		object, isWitness := strings.CutPrefix(name, witnessPrefix)
		some = some || isWitness
		if _, there := l.at[object]; isWitness && !there && !l.expired[object] {
			if err := c.deleted(ctx, object); err != nil {
				return err
			}
		}
		if _, has := l.at[witnessName(name)]; witnessed(name) && !has && l.old(name, looseAfter) {
			bare = append(bare, name)
		}
	}
	if !some {
		c.rep.Skipped = append(c.rep.Skipped, "whether manifests and records were deleted: an older relight wrote them, without witnesses")
	}
	return c.unwitnessed(ctx, bare, some)
}

func (c *checking) deleted(ctx context.Context, object string) error {
	gone, err := c.m.deleted(ctx, object)
	if err != nil || !gone {
		return err
	}
	kind := kindOf(object)
	severity := SeverityWarning
	if slices.Contains([]string{manifestKind, "revocation", "host", "epoch", "estate", "cluster"}, kind) {
		severity = SeverityError
	}
	c.gone[object] = true
	c.find(Finding{Severity: severity, Object: object, What: saidDeleted, Remains: remainsAfter(kind) + putBack + witnessName(object)})
	return nil
}

const putBack = ". Put it back from a mirror, or from a former version that the storage keeps; what is lost for good is no longer reported without "

// remainsAfter says what can still be had although an object of a kind was deleted.
func remainsAfter(kind string) string {
	switch kind {
	case manifestKind:
		return "the store's other snapshots; the manifest brings this one back while its packs are there, and retention stops until then"
	case "revocation":
		return "everything; but what the host's stolen or retired key signs counts again until it is revoked anew: relight key revoke"
	case "host":
		return "what other hosts signed, and what this one did once the record is back"
	case "proof", checkedKind:
		return "the snapshot; its state falls until it is proven or read again"
	case damagedKind:
		return "what was whole; the next check or verification finds the damaged packs again, and until then a backup may refer to them"
	case setKind:
		return "each member, by the restore point in its own log; which members there are is no longer on record"
	case "estate":
		return "the stores' data, and the estate as its other bundles have it"
	case "index":
		return "the snapshots that need none of its packs; which do is named beside this, and the next backup stores anew what they lack"
	case "anchor":
		return "the journal; what an older anchor covers stays certain"
	}
	return remainsWithout(kind)
}

// unwitnessed finds objects without a witness. While retention runs, it may just be taking both away.
func (c *checking) unwitnessed(ctx context.Context, bare []string, report bool) error {
	if len(bare) == 0 {
		return nil
	}
	running, err := c.m.retentionRuns(ctx)
	if err != nil || running {
		return err
	}
	for _, name := range bare {
		there, err := c.m.exists(ctx, name)
		if err != nil {
			return err
		}
		has, err := c.m.exists(ctx, witnessName(name))
		if err != nil {
			return err
		}
		if there && !has {
			c.bare = append(c.bare, name)
		}
	}
	if len(c.bare) > 0 && report {
		c.find(Finding{Severity: SeverityWarning, Object: witnessName(c.bare[0]),
			What:    fmt.Sprintf("%d objects have no witness, so that their deletion would go unnoticed: a writer died before it came, an older relight stored them, or somebody removed it", len(c.bare)),
			Remains: "everything; a check with keys that can write creates what is missing"})
	}
	return nil
}

// retentionRuns says whether somebody may be deleting: retention is under way, or died.
func (m *Meta) retentionRuns(ctx context.Context) (bool, error) {
	epoch, err := m.newestLease(ctx, pruneLease)
	if err != nil || epoch == 0 {
		return false, err
	}
	b, err := m.readBeat(ctx, pruneLease, epoch)
	return !b.Released, err
}

// attest creates the witnesses that are missing, while nobody deletes.
func (c *checking) attest(ctx context.Context) {
	if len(c.bare) == 0 || !c.m.keys.CanWrite() {
		return
	}
	err := c.m.Hold(ctx, pruneLease, pruneTTL, ForAnybody, func(ctx context.Context, _ *Lease) error {
		for _, name := range c.bare {
			there, err := c.m.exists(ctx, name)
			if err == nil && there {
				err = putWitness(ctx, c.m.storage, c.m.keys, name, c.m.now())
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		c.m.log.WarnContext(ctx, "missing witnesses are not created", "err", err)
	}
}

// marks finds marks of retention that are not there although their seal counts them.
func (c *checking) marks(ctx context.Context, names []string) error {
	for _, seal := range names {
		dir, isSeal := strings.CutSuffix(seal, "sealed")
		var r trashRecord
		if !isSeal {
			continue
		}
		if _, err := c.m.getSigned(ctx, "trash", seal, &r); err != nil {
			continue // it is named where its signature is verified
		}
		for n := range min(r.Parts, maxMarkParts) {
			part := dir + "marks." + strconv.Itoa(n)
			if slices.Contains(names, part) {
				continue
			}
			gone, err := c.lacks(ctx, part, seal)
			if err != nil {
				return err
			}
			if gone {
				c.find(Finding{Severity: SeverityWarning, Object: part, What: "it is not there, although " + seal + " counts it", Remains: remainsWithout("trash")})
			}
		}
	}
	return nil
}

const maxMarkParts = 1 << 20

// lacks says that an object is not there, and that the one which names it still is.
func (c *checking) lacks(ctx context.Context, object, namedBy string) (bool, error) {
	if there, err := c.m.exists(ctx, object); err != nil || there {
		return false, err
	}
	return c.m.exists(ctx, namedBy)
}

// leases finds leases without their heartbeat, and the reverse. A holder who lives has renewed his before it ended.
func (c *checking) leases(ctx context.Context, l listed) error {
	for _, name := range slices.Sorted(maps.Keys(l.at)) {
		var err error
		switch kindOf(name) {
		case "lease":
			err = c.beatOf(ctx, name, l)
		case "beat":
			err = c.leaseOf(ctx, name, l)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *checking) beatOf(ctx context.Context, lease string, l listed) error {
	beat := lease + beatSuffix
	if _, there := l.at[beat]; there {
		return nil
	}
	var r leaseRecord
	if _, err := c.m.getSigned(ctx, "lease", lease, &r); err != nil {
		return nil // it is named where its signature is verified, or gone
	}
	if !l.old(lease, max(looseAfter, r.TTL)) {
		return nil
	}
	gone, err := c.lacks(ctx, beat, lease)
	if err == nil && gone {
		c.find(Finding{Severity: SeverityWarning, Object: beat, What: "the lease was never renewed: its holder died at once, or somebody removed its heartbeat", Remains: remainsWithout("beat")})
	}
	return err
}

func (c *checking) leaseOf(ctx context.Context, beat string, l listed) error {
	lease := strings.TrimSuffix(beat, beatSuffix)
	if _, there := l.at[lease]; there {
		return nil
	}
	what := strings.TrimSuffix(strings.TrimPrefix(lease, "lease/"), "/"+lastElement(lease, "/"))
	newest, err := c.m.newestLease(ctx, what) // former epochs are cleared away
	if err != nil {
		return err
	}
	if epoch, perr := strconv.ParseInt(lastElement(lease, "/"), 10, 64); perr != nil || newest >= epoch {
		return nil
	}
	gone, err := c.lacks(ctx, lease, beat)
	if err == nil && gone {
		c.find(Finding{Severity: SeverityWarning, Object: lease, What: "it is not there, although its heartbeat is: its holder, if he lives, loses it when he renews it", Remains: "everything; who takes the lease next is its only holder"})
	}
	return err
}
