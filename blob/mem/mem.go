// Package mem keeps objects in memory: a storage for tests and rehearsals of failure.
//
// It promises what the port demands, in the only sense that memory allows: what Put acknowledged is in every Clone
// taken afterwards, and what it did not acknowledge is in none taken before it returned. A Clone is therefore what
// survives when the process dies at that moment. Together with package fault, which decides what each operation
// does, every operation of a program on storage can be made to fail, tear, block or be the last.
package mem

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/toolboxai/relight/blob"
)

// Storage is a blob.Storage in memory.
type Storage struct {
	mu      sync.Mutex
	objects map[string]object
	dirs    map[string]int // number of objects below each directory
	tick    int64
}

// object is never changed once stored, so clones and readers share its bytes.
type object struct {
	data     []byte
	modified time.Time
}

// epoch is where the storage's clock starts; each write advances it by one second, so that runs repeat exactly.
var epoch = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// New makes an empty storage.
func New() *Storage {
	return &Storage{objects: map[string]object{}, dirs: map[string]int{}}
}

// Clone is what a crash at this moment would leave. The two storages are independent afterwards.
func (s *Storage) Clone() *Storage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &Storage{objects: maps.Clone(s.objects), dirs: maps.Clone(s.dirs), tick: s.tick}
}

// Put stores the rest of body under name.
func (s *Storage) Put(ctx context.Context, name string, body io.ReadSeeker, o blob.PutOptions) error {
	if err := blob.CheckName(name); err != nil {
		return fmt.Errorf("put: %w", err)
	}
	data, err := io.ReadAll(blob.Cancellable(ctx, body))
	if err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, taken := s.objects[name]
	if taken && !o.Replace {
		return fmt.Errorf("put %s: %w", name, blob.ErrExists)
	}
	if why := s.nested(name); why != "" {
		return fmt.Errorf("put %s: %w: %s", name, blob.ErrName, why)
	}
	if !taken {
		s.count(name, 1)
	}
	s.tick++
	s.objects[name] = object{data: data, modified: epoch.Add(time.Duration(s.tick) * time.Second)}
	return nil
}

// nested says how name collides with the objects there are, "" if it does not: the memory driver refuses what a file
// system must, so that a layout that needs both is found by tests.
func (s *Storage) nested(name string) string {
	if s.dirs[name] > 0 {
		return "objects lie below it"
	}
	for dir := range parents(name) {
		if _, ok := s.objects[dir]; ok {
			return dir + " is an object"
		}
	}
	return ""
}

// count adds by to the number of objects below each directory of name.
func (s *Storage) count(name string, by int) {
	for dir := range parents(name) {
		if s.dirs[dir] += by; s.dirs[dir] == 0 {
			delete(s.dirs, dir)
		}
	}
}

// parents yields the directories that name lies in, innermost first.
func parents(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for at := strings.LastIndexByte(name, '/'); at >= 0; at = strings.LastIndexByte(name[:at], '/') {
			if !yield(name[:at]) {
				return
			}
		}
	}
}

// Get opens length bytes of name from offset.
func (s *Storage) Get(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	ob, err := s.find(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("get: %w", err)
	}
	n, err := blob.Span(int64(len(ob.data)), offset, length)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", name, err)
	}
	return blob.Exactly(ctx, io.NopCloser(bytes.NewReader(ob.data[offset:offset+n])), n), nil
}

// Stat describes one object.
func (s *Storage) Stat(ctx context.Context, name string) (blob.Info, error) {
	ob, err := s.find(ctx, name)
	if err != nil {
		return blob.Info{}, fmt.Errorf("stat: %w", err)
	}
	return blob.Info{Name: name, Size: int64(len(ob.data)), Modified: ob.modified}, nil
}

func (s *Storage) find(ctx context.Context, name string) (object, error) {
	if err := ctx.Err(); err != nil {
		return object{}, err
	}
	if err := blob.CheckName(name); err != nil {
		return object{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ob, ok := s.objects[name]
	if !ok {
		return object{}, fmt.Errorf("%s: %w", name, blob.ErrNotFound)
	}
	return ob, nil
}

// List calls fn for the objects that were there when it was called, so fn may write and delete.
func (s *Storage) List(ctx context.Context, prefix string, fn func(blob.Info) error) error {
	if err := blob.CheckPrefix(prefix); err != nil {
		return fmt.Errorf("list: %w", err)
	}
	for _, info := range s.infos(prefix) {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("list %s: %w", prefix, err)
		}
		if err := fn(info); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (s *Storage) infos(prefix string) []blob.Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	var infos []blob.Info
	all := len(s.objects)
	if dir, is := strings.CutSuffix(prefix, "/"); is {
		all = s.dirs[dir]
	}
	for name, ob := range s.objects {
		if len(infos) == all {
			break // most directories hold few of the objects, or none
		}
		if strings.HasPrefix(name, prefix) {
			infos = append(infos, blob.Info{Name: name, Size: int64(len(ob.data)), Modified: ob.modified})
		}
	}
	slices.SortFunc(infos, func(a, b blob.Info) int { return strings.Compare(a.Name, b.Name) })
	return infos
}

// Delete removes an object.
func (s *Storage) Delete(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	if err := blob.CheckName(name); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.objects[name]; there {
		delete(s.objects, name)
		s.count(name, -1)
	}
	return nil
}

// Corrupt changes the stored bytes of an object behind the port's back, as a failing disk or an adversary would.
func (s *Storage) Corrupt(name string, change func([]byte) []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ob, ok := s.objects[name]
	if !ok {
		return fmt.Errorf("corrupt %s: %w", name, blob.ErrNotFound)
	}
	ob.data = change(bytes.Clone(ob.data))
	s.objects[name] = ob
	return nil
}

// String is the storage's URL.
func (s *Storage) String() string { return "mem:" }
