package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const (
	plainBase = mounted + "/plain"
	ourDir    = mounted + "/restored-ours"
	peerDir   = mounted + "/restored-peer"
)

// turns runs one thing after the other, beginning with another one each round.
func turns(round int, things ...func() error) error {
	for i := range things {
		if err := things[(i+round)%len(things)](); err != nil {
			return err
		}
	}
	return nil
}

// full measures full backups into empty repositories.
func (b *bench) full(ctx context.Context) error {
	for round := range b.o.rounds {
		err := turns(round, func() error { return b.ourFull(ctx) }, func() error { return b.peerFull(ctx) }, func() error { return b.plainFull(ctx) })
		if err != nil {
			return err
		}
	}
	return b.protect(ctx)
}

func (b *bench) ourFull(ctx context.Context) error {
	if err := errors.Join(b.unprotect(ctx), b.ours.fresh()); err != nil {
		return err
	}
	if err := b.protect(ctx); err != nil {
		return err
	}
	if err := b.jail.settle(data); err != nil {
		return err
	}
	u, err := b.ours.backup(ctx, "full")
	if err != nil {
		return err
	}
	size, err := b.ours.size()
	if err != nil {
		return err
	}
	start, wait := b.ours.last.apart(u)
	b.res.backup("full backup", "relight", u, start, wait, size)
	return b.unprotect(ctx)
}

func (b *bench) peerFull(ctx context.Context) error {
	if err := b.peer.empty(ctx); err != nil {
		return err
	}
	return b.peerTakes(ctx, "full backup", "full")
}

func (b *bench) peerTakes(ctx context.Context, what, kind string) (err error) {
	back, err := b.peer.turn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, back()) }()
	before, err := b.peer.size()
	if err != nil {
		return err
	}
	if err := b.jail.settle(data); err != nil {
		return err
	}
	u, err := b.peer.backup(ctx, kind)
	if err != nil {
		return err
	}
	after, err := b.peer.size()
	b.res.backup(what, "pgBackRest", u.usage, u.start, u.wait, after-before)
	return err
}

func (b *bench) plainFull(ctx context.Context) error {
	if err := b.jail.remove(plainBase); err != nil {
		return err
	}
	if err := b.jail.settle(data); err != nil {
		return err
	}
	u, err := b.plain(ctx, plainBase)
	if err != nil {
		return err
	}
	size, err := b.jail.sizeOf(plainBase)
	b.res.backup("full backup", "pg_basebackup", u, -1, -1, size)
	return err
}

func (b *bench) plain(ctx context.Context, dir string, args ...string) (usage, error) {
	argv := []string{b.pg.bin + "/pg_basebackup", "-h", mounted, "-p", port, "-D", dir, "-X", "none", "-c", "fast"}
	return b.jail.use(ctx, append(argv, args...)...)
}

// restores measures the way from a repository to a directory on disk. pgBackRest's restore ends there; relight goes on and replays, which is
// reported apart.
func (b *bench) restores(ctx context.Context) error {
	if b.ours.last.ID == "" {
		return errors.New("it needs the part full")
	}
	for round := range b.o.rounds {
		if err := turns(round, func() error { return b.ourRestore(ctx) }, func() error { return b.peerRestore(ctx) }); err != nil {
			return err
		}
	}
	return b.deltas(ctx)
}

func (b *bench) ourRestore(ctx context.Context) error {
	if err := b.jail.remove(ourDir); err != nil {
		return err
	}
	if err := b.jail.settle(vault); err != nil {
		return err
	}
	r, u, err := b.ours.restore(ctx, ourDir, "--at", "immediate", "--snapshot", b.ours.last.ID)
	if err != nil {
		return err
	}
	b.res.add("restore", "restore", "s", "relight", r.copying(u))
	b.res.add("restore", "restore: CPU, replay included", "s", "relight", u.cpu)
	b.res.add("restore", "replay, promotion and shutdown, after the restore", "s", "relight", u.wall-r.copying(u))
	b.res.add("memory", "restore, most resident", "MB", "relight", float64(u.memory)/1e6)
	return nil
}

func (b *bench) peerRestore(ctx context.Context) error {
	if err := b.jail.remove(peerDir); err != nil {
		return err
	}
	if err := b.jail.directory(peerDir); err != nil {
		return err
	}
	if err := b.jail.settle(peerRepo); err != nil {
		return err
	}
	u, err := b.peer.restore(ctx, peerDir)
	if err != nil {
		return err
	}
	b.res.add("restore", "restore", "s", "pgBackRest", u.wall)
	b.res.add("restore", "restore: CPU, replay included", "s", "pgBackRest", u.cpu)
	b.res.add("memory", "restore, most resident", "MB", "pgBackRest", float64(u.memory)/1e6)
	return nil
}

func (j *jail) directory(path string) error {
	if err := os.MkdirAll(j.host(path), 0o700); err != nil {
		return err
	}
	return os.Chown(j.host(path), j.uid, j.gid)
}

// deltas measures restores into a directory of which 1 % of the pages are damaged.
func (b *bench) deltas(ctx context.Context) error {
	can := b.ours.offers(ctx, "--delta", "postgres", "restore")
	if !can {
		b.res.note("relight restores into an empty directory only: `relight postgres restore` offers no --delta")
	}
	for round := range b.o.rounds {
		err := turns(round, func() error {
			if !can {
				return nil
			}
			if err := b.damage(ourDir, round); err != nil {
				return err
			}
			if err := b.jail.settle(ourDir, vault); err != nil {
				return err
			}
			r, u, err := b.ours.restore(ctx, ourDir, "--at", "immediate", "--snapshot", b.ours.last.ID, "--delta", "--force")
			b.res.add("restore", "delta restore, 1 % of pages damaged", "s", "relight", r.copying(u))
			return err
		}, func() error {
			if err := b.damage(peerDir, round); err != nil {
				return err
			}
			if err := b.jail.settle(peerDir, peerRepo); err != nil {
				return err
			}
			u, err := b.peer.restore(ctx, peerDir, "--delta")
			b.res.add("restore", "delta restore, 1 % of pages damaged", "s", "pgBackRest", u.wall)
			return err
		})
		if err != nil {
			return err
		}
	}
	return b.jail.remove(ourDir, peerDir)
}

// damage overwrites every hundredth page of the relations.
func (b *bench) damage(dir string, round int) error {
	files, err := filepath.Glob(filepath.Join(b.jail.host(dir), "base/*/[0-9]*"))
	if err != nil {
		return err
	}
	junk := []byte(strings.Repeat("damage! ", 1024))
	at := int64(7 + round)
	for _, path := range files {
		if at, err = damageFile(path, at, junk); err != nil {
			return err
		}
	}
	return nil
}

// damageFile gives back how far into the next file its first page to be damaged lies.
func damageFile(path string, at int64, junk []byte) (_ int64, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return at, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return at, err
	}
	pages := info.Size() / int64(len(junk))
	for ; at < pages; at += 100 {
		if _, err := f.WriteAt(junk, at*int64(len(junk))); err != nil {
			return at, err
		}
	}
	return at - pages, nil
}

// incrementals measures backups after a row on 1 % of the pages was changed.
func (b *bench) incrementals(ctx context.Context) error {
	can := b.ours.offers(ctx, "incremental", "backup", "create")
	if !can {
		b.res.note("relight took no incremental backups: `relight backup create` offers no --kind incremental")
	}
	if err := b.protect(ctx); err != nil {
		return err
	}
	previous := plainBase
	for round := range b.o.rounds {
		if err := b.pg.touch(ctx, round); err != nil {
			return err
		}
		if _, err := b.ours.relight(ctx, "protect", "wait", "--timeout", "300s"); err != nil {
			return err
		}
		next := fmt.Sprintf("%s%d", plainBase, round)
		err := turns(round, func() error {
			if !can {
				return nil
			}
			return b.ourIncremental(ctx)
		}, func() error { return b.peerTakes(ctx, "incremental backup", "incr") }, func() error {
			if !b.pg.summarizes() {
				return nil
			}
			return b.plainIncremental(ctx, previous, next)
		})
		if err != nil {
			return err
		}
		previous = next
	}
	return nil
}

func (b *bench) ourIncremental(ctx context.Context) error {
	before, err := b.ours.size()
	if err != nil {
		return err
	}
	if err := b.jail.settle(data); err != nil {
		return err
	}
	u, err := b.ours.backup(ctx, "incremental")
	if err != nil {
		return err
	}
	after, err := b.ours.size()
	start, wait := b.ours.last.apart(u)
	b.res.backup("incremental backup", "relight", u, start, wait, after-before)
	return err
}

func (b *bench) plainIncremental(ctx context.Context, previous, next string) error {
	if err := b.jail.settle(data); err != nil {
		return err
	}
	u, err := b.plain(ctx, next, "--incremental="+previous+"/backup_manifest")
	if err != nil {
		return err
	}
	size, err := b.jail.sizeOf(next)
	b.res.backup("incremental backup", "pg_basebackup", u, -1, -1, size)
	return err
}
