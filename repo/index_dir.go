package repo

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"
)

// indexDir is the cache directory of a chunkIndex; a nil one keeps nothing on disk that has a name. Several
// processes share a directory: each change happens under a lock and ends with the rename of state.json.
type indexDir struct {
	path       string
	generation string // of the state that is in memory
}

type savedState struct {
	Generation string      `json:"generation"`
	Runs       []savedRun  `json:"runs"`
	Packs      []savedPack `json:"packs"`
	Objects    []string    `json:"objects"`
}

type savedRun struct {
	Name   string `json:"name"`
	Count  int64  `json:"count"`
	Digest string `json:"blake3"`
}

type savedPack struct {
	ID   ChunkID `json:"id"`
	Kind string  `json:"kind"`
	Size int64   `json:"size"`
}

// openIndexDir prepares path; an empty path gives nil.
func openIndexDir(path string) (*indexDir, error) {
	if path == "" {
		return nil, nil
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("prepare index cache: %w", err)
	}
	return &indexDir{path: path}, nil
}

// temp is where temporary files go: beside the cache, which was given the room that an index needs.
func (d *indexDir) temp() string {
	if d == nil {
		return ""
	}
	return d.path
}

// forget makes the next load read the directory.
func (d *indexDir) forget() {
	if d != nil {
		d.generation = ""
	}
}

// locked runs fn while no other process changes the directory.
func (d *indexDir) locked(fn func() error) error {
	if d == nil {
		return fn()
	}
	f, err := os.OpenFile(filepath.Join(d.path, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("lock index cache: %w", err)
	}
	defer func() { _ = f.Close() }() // closing releases the lock
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock index cache: %w", err)
	}
	return fn()
}

// load gives the state on disk when it is not the one in memory. A cache that cannot be read counts as empty: it
// is rebuilt from the repository.
func (d *indexDir) load() (indexState, bool, error) {
	if d == nil {
		return indexState{}, false, nil
	}
	b, err := os.ReadFile(filepath.Join(d.path, "state.json"))
	if errors.Is(err, fs.ErrNotExist) {
		fresh := d.generation != ""
		d.generation = ""
		return indexState{objects: map[string]bool{}}, fresh, nil
	}
	if err != nil {
		return indexState{}, false, fmt.Errorf("read index cache: %w", err)
	}
	var saved savedState
	if json.Unmarshal(b, &saved) == nil && saved.Generation == d.generation {
		return indexState{}, false, nil
	}
	st, err := d.restore(saved)
	if err != nil {
		d.generation = ""
		return indexState{objects: map[string]bool{}}, true, nil
	}
	d.generation = saved.Generation
	return st, true, nil
}

func (d *indexDir) restore(saved savedState) (indexState, error) {
	st := indexState{objects: map[string]bool{}}
	if saved.Generation == "" {
		return st, errIndex
	}
	for _, name := range saved.Objects {
		st.objects[name] = true
	}
	for _, p := range saved.Packs {
		if len(p.Kind) != 1 {
			return st, errIndex
		}
		st.packs = append(st.packs, packInfo{id: packID(p.ID), kind: packKind(p.Kind[0]), size: p.Size})
	}
	for _, r := range saved.Runs {
		if strings.ContainsRune(r.Name, '/') || r.Count < 0 || r.Count > 1<<32-1 {
			return st, errIndex
		}
		run, err := openRun(filepath.Join(d.path, r.Name), r.Name, r.Count, r.Digest)
		if err != nil {
			for _, open := range st.runs {
				_ = open.f.Close()
			}
			return st, err
		}
		st.runs = append(st.runs, run)
	}
	return st, nil
}

// writeRun makes a run of what fill adds, at most count rows in order.
func (d *indexDir) writeRun(count int64, fill func(add func(row []byte) error) error) (*indexRun, error) {
	f, name, err := d.create()
	if err != nil {
		return nil, err
	}
	var h *blake3.Hasher // of what outlives the process
	if d != nil {
		h = blake3.New()
	}
	w := newRecordWriter(f, h)
	fan := newFanBuilder(count)
	err = fill(func(row []byte) error {
		fan.add(row)
		return w.add(row)
	})
	run := &indexRun{name: name, f: f}
	if err == nil {
		run.count, run.digest, err = w.finish()
	}
	if err == nil && d != nil {
		err = f.Sync() // state.json must not name a file that a power cut can empty
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	run.shift, run.fan = fan.finish()
	return run, nil
}

func (d *indexDir) create() (*os.File, string, error) {
	if d == nil {
		f, err := tempFile("")
		return f, "", err
	}
	name := "run-" + rand.Text()
	f, err := os.OpenFile(filepath.Join(d.path, name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, "", fmt.Errorf("create index cache: %w", err)
	}
	return f, name, nil
}

// save publishes st and removes the files that it no longer names. Processes that still read those keep them open.
func (d *indexDir) save(st indexState) error {
	if d == nil {
		return nil
	}
	saved := savedState{Generation: rand.Text()}
	named := map[string]bool{}
	for _, r := range st.runs {
		saved.Runs = append(saved.Runs, savedRun{Name: r.name, Count: r.count, Digest: r.digest})
		named[r.name] = true
	}
	for _, p := range st.packs {
		saved.Packs = append(saved.Packs, savedPack{ID: ChunkID(p.id), Kind: string(p.kind), Size: p.size})
	}
	for name := range st.objects {
		saved.Objects = append(saved.Objects, name)
	}
	b, err := json.Marshal(saved)
	if err != nil {
		return fmt.Errorf("save index cache: %w", err)
	}
	if err := d.replace("state.json", b); err != nil {
		return fmt.Errorf("save index cache: %w", err)
	}
	d.generation = saved.Generation
	return d.sweep(named)
}

func (d *indexDir) replace(name string, b []byte) error {
	path := filepath.Join(d.path, name)
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func (d *indexDir) sweep(named map[string]bool) error {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return fmt.Errorf("sweep index cache: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "run-") && !named[e.Name()] {
			if err := os.Remove(filepath.Join(d.path, e.Name())); err != nil {
				return fmt.Errorf("sweep index cache: %w", err)
			}
		}
	}
	return nil
}
