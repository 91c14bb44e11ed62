package postgres

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/host"
	"github.com/toolboxai/relight/internal/pgtest"
	"github.com/toolboxai/relight/internal/power"
	"github.com/toolboxai/relight/repo"
	"github.com/toolboxai/relight/store"
)

// targetModel is the model of a disk that loses power, as a restore sees it.
type targetModel struct{ *power.Disk }

func (d targetModel) Mkdir(path string) error         { return d.Disk.Mkdir(path, 0o700) }
func (d targetModel) OpenFS(string) (targetFS, error) { return d.Disk.OpenFS(), nil }

func (d targetModel) Move(from, to string) error {
	err := d.Place(from, to)
	if err == nil {
		err = d.SyncDir(filepath.Dir(to))
	}
	if err == nil && filepath.Dir(from) != filepath.Dir(to) {
		err = d.SyncDir(filepath.Dir(from))
	}
	return err
}

func (d targetModel) Create(path string) (targetFile, error) {
	if _, err := os.Lstat(path); err == nil {
		return nil, &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	return d.open(path)
}

func (d targetModel) Open(path string) (targetFile, error) {
	if _, err := os.Lstat(path); err != nil {
		return nil, err
	}
	return d.open(path)
}

func (d targetModel) open(path string) (targetFile, error) {
	f, err := d.Disk.Open(path)
	if err != nil {
		return nil, err
	}
	return targetModelFile{f}, nil
}

type targetModelFile struct{ *power.File }

func (f targetModelFile) Behind() io.WriterAt { return f }

const (
	versionPath = "PG_15_202209061"
	spacePath   = tblspcDir + "/16385/" + versionPath
)

// cluster is the content of a small cluster: files by their path, as seen from the data directory.
func cluster(seed byte, state controlState) map[string]string {
	control := sampleControl(1300)
	binary.LittleEndian.PutUint32(control[16:], uint32(state))
	binary.LittleEndian.PutUint64(control[32:], uint64(seed)<<24)
	binary.LittleEndian.PutUint32(control[controlUsed:], crc32.Checksum(control[:controlUsed], castagnoli))
	pages := func(n int) string {
		var b []byte
		for i := range n {
			b = append(b, heapPage(seed+byte(i), uint32(i), 1)...)
		}
		return string(b)
	}
	return map[string]string{
		"PG_VERSION": "15\n", "base/5/100": pages(3), "base/5/101": pages(1), controlName: string(control), spacePath + "/5/200": pages(2),
	}
}

// targets makes restores of one snapshot.
type targets struct {
	v   *vault
	s   *Store
	man repo.Manifest
	f   Facts

	root string
}

func newTargets(t *testing.T) *targets {
	t.Helper()
	w := &targets{v: newVault(t), s: New(Config{Name: "main"}, Deps{}), root: pgtest.Root(t)}
	w.f = Facts{System: 7, Version: 150000, Catalog: 202209061, SegmentSize: 1 << 20, DirMode: 0o700, Tablespaces: []Tablespace{{OID: 16385, Name: "space", Location: "/srv/of/the/source"}}}
	files := cluster(1, stateProduction)
	files[labelName], files[mapName] = "START WAL LOCATION\n", "16385 /srv/of/the/source\n"
	files["postgresql.auto.conf"] = "work_mem = '1MB'\nrestore_command = 'false'\n"
	var paths []string
	for path := range files {
		for ; path != "."; path = filepath.Dir(path) {
			paths = append(paths, path)
		}
	}
	paths = append(paths, ".", walDir, "pg_notify")
	slices.Sort(paths)
	writer, err := w.v.meta.NewSnapshot(t.Context(), "main", repo.SnapshotOptions{Kind: "full", Workers: 1})
	check(t, err)
	defer writer.Abort(t.Context())
	for _, path := range slices.Compact(paths) {
		text, file := files[path]
		switch _, paged := relationFile(path); {
		case file:
			_, err = writer.AddFile(t.Context(), repo.Entry{Path: path, Mode: 0o600, Paged: paged}, strings.NewReader(text))
		case tablespaceRoot(path):
			_, err = writer.AddLink(t.Context(), repo.Entry{Path: path, Mode: fs.ModeSymlink | 0o777, Link: "/srv/of/the/source"})
		default:
			_, err = writer.AddDir(t.Context(), repo.Entry{Path: path, Mode: fs.ModeDir | 0o700})
		}
		check(t, err)
	}
	snap, err := writer.Commit(t.Context(), relight.Snapshot{})
	check(t, err)
	w.man, err = w.v.meta.Manifest(t.Context(), "main", snap.ID)
	check(t, err)
	return w
}

// target is a place on a model of a disk that a restore is to fill.
type target struct {
	t    *testing.T
	w    *targets
	base string
	dir  string
	o    store.RestoreOptions
	disk *power.Disk
	old  map[string]string // what is there before, by its path as seen from the data directory
	kept []string          // contents that must not be lost
}

// newTarget makes a place; prepare fills it with what is there before.
func newTarget(t *testing.T, w *targets, prepare func(*target)) *target {
	t.Helper()
	base, err := os.MkdirTemp(w.root, "target")
	check(t, err)
	g := &target{t: t, w: w, base: base, dir: filepath.Join(base, "data"), o: store.RestoreOptions{Workers: 1, Force: true}}
	prepare(g)
	g.disk = power.New(base)
	return g
}

// begin is a restore that has chosen what it brings back.
func (g *target) begin() *restore {
	r := g.w.s.newRestore(g.w.v.reader, point(relight.RecoveryTarget{Kind: relight.TargetLatest}), store.Target{Directory: g.dir}, g.o)
	if g.space() != "" {
		r.t.Tablespaces = map[string]string{"space": g.space()}
	}
	var err error
	r.disk, r.man, r.plan.Base = targetModel{g.disk}, g.w.man, base{ID: g.w.man.ID, Facts: g.w.f}
	r.layout, err = newLayout(g.t.Context(), r.m, r.man, g.w.f, g.dir)
	check(g.t, errors.Join(err, r.placeSpaces()))
	r.owner = host.User{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
	r.state = restoreState{Point: r.point, Snapshot: g.w.man.ID, System: 7, Started: r.clock()}
	return r
}

// space is where the tablespace goes by word; "" lets it go beside.
func (g *target) space() string {
	if g.old[spacePath+"/5/200"] == "" {
		return ""
	}
	return filepath.Join(g.base, "space")
}

func (g *target) restore() error {
	r := g.begin()
	if err := g.clear(r); err != nil {
		return err
	}
	return r.copyFiles(g.t.Context())
}

func (g *target) clear(r *restore) error { return errors.Join(r.unclaimed(), r.clear(g.t.Context())) }

// lose loses the power. What is left is on the next disk.
func (g *target) lose(o power.Outcome) {
	g.t.Helper()
	check(g.t, g.disk.Lose(o))
	g.disk = power.New(g.base)
}

// hasFiles tells whether a data directory has the files of a cluster, its tablespace's through the link.
func hasFiles(dir string, files map[string]string) error {
	for path, want := range files {
		got, err := os.ReadFile(filepath.Join(dir, path))
		if err != nil {
			return err
		}
		if string(got) != want {
			return fmt.Errorf("%s is not what it was to be: %d bytes", path, len(got))
		}
	}
	return nil
}

// whole tells whether the directory is what a restore leaves for the server to recover from, and nothing else is in it.
func (g *target) whole() error {
	want := cluster(1, stateProduction)
	want[labelName], want["recovery.signal"], want["postgresql.auto.conf"] = "START WAL LOCATION\n", "", "work_mem = '1MB'\n"
	place := g.space()
	if place == "" {
		place = filepath.Join(g.dir+".tblspc", "16385")
	}
	want[mapName] = "16385 " + place + "\n"
	var extra error
	for _, dir := range []string{g.dir, filepath.Join(place, versionPath)} {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || e.Type()&fs.ModeSymlink != 0 || e.Name() == stateFile {
				return err
			}
			rel := strings.TrimPrefix(strings.Replace(path, place+"/"+versionPath, g.dir+"/"+spacePath, 1), g.dir+"/")
			if _, known := want[rel]; !known {
				extra = fmt.Errorf("%s does not belong there", rel)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return errors.Join(hasFiles(g.dir, want), extra)
}

// safe holds what a loss of power leaves against what was promised: no server can start from what is neither the old cluster nor a whole new one, the
// directory is recognised, and nothing that was there is lost.
func (g *target) safe() error {
	untouched := g.old != nil && hasFiles(g.dir, g.old) == nil
	var errs []error
	if exists(filepath.Join(g.dir, controlName)) && !untouched {
		if err := g.whole(); err != nil {
			errs = append(errs, fmt.Errorf("a server could start from what is not whole: %w", err))
		}
	}
	switch held, what, err := occupant(g.dir); {
	case err != nil:
		errs = append(errs, err)
	case held == occupied && !untouched:
		errs = append(errs, fmt.Errorf("the restore's own directory is taken for somebody's: %s", what))
	}
	return errors.Join(append(errs, g.nothingLost())...)
}

// nothingLost looks for every content that was there.
func (g *target) nothingLost() error {
	if len(g.kept) == 0 {
		return nil
	}
	found := map[string]bool{}
	err := filepath.WalkDir(g.base, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		found[string(b)] = true
		return err
	})
	for _, text := range g.kept {
		if !found[text] {
			err = errors.Join(err, fmt.Errorf("what was there is lost: %.40q", text))
		}
	}
	return err
}

// finished is what the next restore must come to, and what a further loss of power must leave of it.
func (g *target) finished() error {
	if err := g.restore(); err != nil {
		return fmt.Errorf("the next restore: %w", err)
	}
	g.lose(power.Gone)
	return errors.Join(g.whole(), g.safe(), g.asideIsWhole())
}

// asideIsWhole tells whether what was set aside is a cluster still.
func (g *target) asideIsWhole() error {
	if len(g.kept) == 0 || g.o.Delta {
		return nil
	}
	aside, err := filepath.Glob(filepath.Join(g.dir+".damaged-*", controlName))
	if err != nil || len(aside) != 1 {
		return fmt.Errorf("set aside is %q, %w", aside, err)
	}
	if err := hasFiles(filepath.Dir(filepath.Dir(aside[0])), g.old); err != nil {
		return fmt.Errorf("set aside: %w", err)
	}
	return nil
}

// lay puts files where they belong; those of the tablespace go to their place, with a link to it.
func (g *target) lay(files map[string]string) {
	g.t.Helper()
	space := filepath.Join(g.base, "space")
	for path, text := range files {
		to := filepath.Join(g.dir, path)
		if rest, ok := strings.CutPrefix(path, tblspcDir+"/16385/"); ok {
			to = filepath.Join(space, rest)
		}
		check(g.t, os.MkdirAll(filepath.Dir(to), 0o700))
		check(g.t, os.WriteFile(to, []byte(text), 0o600))
	}
	link := filepath.Join(g.dir, tblspcDir, "16385")
	if !exists(link) {
		check(g.t, os.MkdirAll(filepath.Dir(link), 0o700))
		check(g.t, os.Symlink(space, link))
	}
}

// exhaustive skips, with -short, a test of hundreds of cases, one after the other: the race detector has nothing of it. Else it runs beside the others.
func exhaustive(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("exhaustive")
	}
	t.Parallel()
}

// fresh: nothing is there.
func fresh(*target) {}

// occupiedBefore: another state of the cluster is there, with files that the snapshot does not have.
func occupiedBefore(g *target) {
	g.old = cluster(50, stateShutdown)
	maps.Copy(g.old, map[string]string{
		walDir + "/000000010000000000000001": "log that no repository holds", "base/5/999": "a table that was made since", "junk/deep/file": "junk", spacePath + "/5/201": "more",
	})
	g.lay(g.old)
	for _, text := range g.old {
		if text != "15\n" {
			g.kept = append(g.kept, text)
		}
	}
}

// outdated: the same, to be changed in place, where blocks that differ are overwritten.
func outdated(g *target) {
	occupiedBefore(g)
	g.o.Delta, g.kept = true, nil
	g.lay(map[string]string{"recovery.signal": ""}) // it was recovering when it was damaged
	for _, path := range []string{controlName, walDir + "/000000010000000000000001", "base/5/999", "junk/deep/file", spacePath + "/5/201"} {
		g.kept = append(g.kept, g.old[path])
	}
}

// replaying: a restore died while its server replayed.
func replaying(g *target) {
	g.disk = power.New(g.base)
	r := g.begin()
	check(g.t, g.clear(r))
	check(g.t, r.copyFiles(g.t.Context()))
	r.state.Progress, r.state.Server = restoreReplaying, 4711
	check(g.t, r.note())
	g.server(cluster(60, stateArchiveRecovery), "recovery.signal", "postmaster.pid")
}

// shutDown: a restore died after it had shut its server down.
func shutDown(g *target) {
	replaying(g)
	g.server(cluster(70, stateShutdown))
	r := g.begin()
	st, err := readState(g.dir)
	check(g.t, err)
	r.state = st
	r.state.Checkpoint = 70 << 24
	check(g.t, r.note())
}

// server does what a server does to its files. Besides these it leaves its old label and signals.
func (g *target) server(files map[string]string, signals ...string) {
	g.t.Helper()
	space, err := filepath.EvalSymlinks(filepath.Join(g.dir, tblspcDir, "16385"))
	check(g.t, err)
	for path, text := range files {
		if rest, ok := strings.CutPrefix(path, tblspcDir+"/16385/"); ok {
			check(g.t, os.WriteFile(filepath.Join(space, rest), []byte(text), 0o600))
			continue
		}
		check(g.t, os.WriteFile(filepath.Join(g.dir, path), []byte(text), 0o600))
	}
	for _, name := range []string{labelName, mapName} {
		if exists(filepath.Join(g.dir, name)) {
			check(g.t, os.Rename(filepath.Join(g.dir, name), filepath.Join(g.dir, name+".old")))
		}
	}
	for _, name := range []string{"recovery.signal", "postmaster.pid"} {
		check(g.t, os.RemoveAll(filepath.Join(g.dir, name)))
		if slices.Contains(signals, name) {
			check(g.t, os.WriteFile(filepath.Join(g.dir, name), []byte("4711\n"), 0o600))
		}
	}
	g.old = maps.Clone(files)
	delete(g.old, spacePath+"/5/200") // it lies beside
}
