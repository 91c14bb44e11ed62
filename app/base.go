package app

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/coordinator"
	"github.com/toolboxai/relight/host"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store"
	"github.com/toolboxai/relight/store/postgres"
)

// base takes and finds the base backups of one store in one repository.
type base struct {
	store *postgres.Store
	meta  *repo.Meta
	name  string
	lock  locker
	full  time.Duration // age of the newest full backup at which the next is a full one
	now   func() time.Time
	log   *slog.Logger
}

// Newest is of the cluster that the store belongs to now: one that it had before serves no log of today. One that is dated in the future says nothing of its age.
func (b base) Newest(ctx context.Context) (relight.Snapshot, bool, error) {
	all, err := b.meta.Snapshots(ctx, b.name)
	if err != nil {
		return relight.Snapshot{}, false, err
	}
	system, err := b.meta.Cluster(ctx, b.name)
	if err != nil {
		return relight.Snapshot{}, false, err
	}
	for _, man := range slices.Backward(all) {
		f, err := postgres.FactsOf(man.Snapshot)
		ours := err != nil || system == 0 || f.System == system
		if ours && !coordinator.Ahead(man.Snapshot, b.now()) {
			return man.Snapshot, true, nil
		}
	}
	return relight.Snapshot{}, false, nil
}

// Start gives timeline 0, which no server is on, where the facts cannot be read: then a new backup is due.
func (b base) Start(s relight.Snapshot) (relight.TimelineID, relight.LSN) {
	f, err := postgres.FactsOf(s)
	if err != nil {
		return 0, 0
	}
	return f.Timeline, f.StartLSN
}

// Gap leaves out what a former cluster of the store has lost: no base backup of the present one mends it.
func (b base) Gap(ctx context.Context, s relight.Snapshot) (string, error) {
	f, err := postgres.FactsOf(s)
	if err != nil {
		return "", err
	}
	gaps, err := b.meta.Gaps(ctx, b.name, f.System)
	if err != nil {
		return "", err
	}
	for _, g := range gaps {
		if g.Timeline >= f.Timeline && g.To > f.StopLSN {
			return fmt.Sprintf("write-ahead log from %s to %s of timeline %d is lost", g.From, g.To, g.Timeline), nil
		}
	}
	return "", nil
}

func (b base) Costs(ctx context.Context) ([]coordinator.Cost, error) {
	all, err := b.meta.Snapshots(ctx, b.name)
	if err != nil {
		return nil, err
	}
	var out []coordinator.Cost
	for _, man := range all {
		out = append(out, coordinator.CostOf(man.Snapshot))
	}
	return out, nil
}

// What a replay must have read to tell a rate, and the rate that is assumed until one has.
const (
	tellingReplay = 32 << 20
	assumedReplay = 16 << 20
)

// ReplayRate is that of the last proof which replayed enough to tell; the servers of proofs are this host's.
func (b base) ReplayRate(ctx context.Context) (float64, error) {
	proofs, err := b.meta.Proofs(ctx, b.name)
	if err != nil {
		return 0, err
	}
	rate, at := float64(assumedReplay), time.Time{}
	for _, p := range proofs {
		for _, phase := range p.Restored.Phases {
			if phase.Name == "replay" && phase.Bytes >= tellingReplay && phase.Seconds > 0 && p.At.After(at) {
				rate, at = float64(phase.Bytes)/phase.Seconds, p.At
			}
		}
	}
	return rate, nil
}

func (b base) Backup(ctx context.Context) (relight.Snapshot, error) {
	all, err := b.meta.Snapshots(ctx, b.name)
	if err != nil {
		return relight.Snapshot{}, err
	}
	begun := b.now()
	var read atomic.Int64
	take := baseBackup{Kind: kindIncremental, Lock: b.lock, Progress: func(p relight.Progress) { read.Store(p.Done) }, Say: func(why string) { b.log.Info("a full base backup is taken", "store", b.name, "because", why) }}
	if why := fullDue(all, b.full, b.now()); why != "" {
		take.Kind = kindFull
		take.Say(why)
	}
	snapshot, err := take.from(ctx, b.store, b.meta, b.name)
	if err != nil {
		return relight.Snapshot{Started: begun, Finished: b.now(), Read: read.Load()}, err
	}
	return snapshot, nil
}

const (
	kindFull        = "full"
	kindIncremental = "incremental"
)

// fullDue says why the next backup must read and compare everything; "" when it need not.
func fullDue(all []repo.Manifest, every time.Duration, now time.Time) string {
	for _, man := range slices.Backward(all) {
		if man.Kind != kindFull || coordinator.Ahead(man.Snapshot, now) {
			continue
		}
		if man.Damaged {
			return "what was read last of the newest full one, " + string(man.ID) + ", is damaged"
		}
		if age := now.Sub(man.Finished); age >= every {
			return "the newest full one is " + age.Round(time.Second).String() + " old"
		}
		return ""
	}
	return "there is none yet"
}

// baseBackup is how a base backup is taken.
type baseBackup struct {
	Lock     locker           // keeps other processes of this host out
	Kind     string           // an incremental one becomes a full one where no snapshot can be its parent
	Say      func(why string) // why it became one
	Progress func(relight.Progress)
}

// locker takes a kernel lock of the estate.
type locker func(name, what string) (*host.FileLock, error)

// backupTTL is how long a host must be silent before another one may take its backup over.
const backupTTL = 2 * time.Minute

// from takes the backup while it holds the lease backup/<store> of the repository: there is never more than one at a time. The lock keeps
// other processes of this host out at once, and lets the next one begin at once after a crash.
func (t baseBackup) from(ctx context.Context, s *postgres.Store, m *repo.Meta, name string) (out relight.Snapshot, err error) {
	lock, err := t.Lock("backup-"+name+"-"+m.Name(), "backup of "+name+" into "+m.Name())
	if err != nil {
		return relight.Snapshot{}, err
	}
	defer func() { _ = lock.Unlock() }()
	err = m.Hold(ctx, "backup/"+name, backupTTL, repo.ForOtherHosts, func(ctx context.Context, l *repo.Lease) error {
		out, err = t.under(ctx, l, s, m, name)
		return err
	})
	return out, err
}

func (t baseBackup) under(ctx context.Context, l *repo.Lease, s *postgres.Store, m *repo.Meta, name string) (relight.Snapshot, error) {
	o := repo.SnapshotOptions{Kind: t.Kind, Lease: l}
	if t.Kind == kindIncremental {
		parent, why, err := s.FindParent(ctx, m)
		if err != nil {
			return relight.Snapshot{}, err
		}
		if o.Parent = parent; parent == nil {
			o.Kind = kindFull
			t.Say(why)
		}
	}
	w, err := m.NewSnapshot(ctx, name, o)
	if err != nil {
		return relight.Snapshot{}, err
	}
	snapshot, err := s.Backup(ctx, w, store.BackupOptions{Progress: t.Progress})
	if err != nil {
		w.Abort(context.WithoutCancel(ctx))
	}
	return snapshot, err
}
