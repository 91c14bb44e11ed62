package file

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// errPower is what every call says once the power is gone.
var errPower = errors.New("power lost")

// power is a disk that knows what a loss of power would leave: of a file the bytes synced before it was placed, of a
// directory the entries that were in it when it was synced. Directories are told apart by number, as by inode: one that
// is removed and made again is another. After call number last the power is gone.
type power struct {
	system
	mu     sync.Mutex
	log    []string
	last   int                      // 0: the power stays
	synced map[string]bool          // temporary files whose bytes are durable
	ids    map[string]int           // directories as they are now
	next   int                      // number of the next directory
	fresh  map[int]map[string]entry // changed since the directory was last synced
	stable map[int]map[string]entry // durable
}

// entry of a directory: a file with its content, or a directory; gone where both are missing.
type entry struct {
	content string
	dir     int
}

const lostBytes = "bytes that were never synced"

func newPower(last int) *power {
	return &power{
		last: last, synced: map[string]bool{}, ids: map[string]int{},
		fresh: map[int]map[string]entry{}, stable: map[int]map[string]entry{},
	}
}

// id numbers a directory that was there before.
func (p *power) id(path string) int {
	if p.ids[path] == 0 {
		p.next++
		p.ids[path] = p.next
	}
	return p.ids[path]
}

func (p *power) call(format string, args ...any) error {
	if p.last > 0 && len(p.log) >= p.last {
		return errPower
	}
	p.log = append(p.log, fmt.Sprintf(format, args...))
	return nil
}

func (p *power) change(path string, e entry) {
	dir := p.id(filepath.Dir(path))
	if p.fresh[dir] == nil {
		p.fresh[dir] = map[string]entry{}
	}
	p.fresh[dir][filepath.Base(path)] = e
}

func (p *power) Mkdir(path string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.call("mkdir %s", filepath.Base(path)); err != nil {
		return err
	}
	err := p.system.Mkdir(path)
	if err == nil {
		delete(p.ids, path)
		p.change(path, entry{dir: p.id(path)})
	}
	return err
}

func (p *power) CreateTemp(dir string) (temporary, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.call("create"); err != nil {
		return nil, err
	}
	f, err := p.system.CreateTemp(dir)
	if err != nil {
		return nil, err
	}
	return &powerFile{temporary: f, p: p}, nil
}

type powerFile struct {
	temporary
	p *power
}

func (f *powerFile) Write(b []byte) (int, error) {
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	f.p.synced[f.Name()] = false
	if err := f.p.call("write"); err != nil {
		return 0, err
	}
	return f.temporary.Write(b)
}

func (f *powerFile) Sync() error {
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	if err := f.p.call("sync file"); err != nil {
		return err
	}
	f.p.synced[f.Name()] = true
	return f.temporary.Sync()
}

func (p *power) Place(temp, path string) error {
	return p.moved("place", temp, path, p.system.Place)
}

func (p *power) Replace(temp, path string) error {
	return p.moved("replace", temp, path, p.system.Replace)
}

func (p *power) moved(what, temp, path string, move func(a, b string) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.call("%s %s", what, filepath.Base(path)); err != nil {
		return err
	}
	content := lostBytes
	if p.synced[temp] {
		data, err := os.ReadFile(temp)
		if err != nil {
			return err
		}
		content = "file " + string(data)
	}
	err := move(temp, path)
	if err == nil {
		p.change(path, entry{content: content})
	}
	return err
}

func (p *power) Remove(path string) error {
	return p.removed("remove", path, p.system.Remove)
}

func (p *power) RemoveDir(path string) error {
	return p.removed("rmdir", path, p.system.RemoveDir)
}

func (p *power) removed(what, path string, remove func(string) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.call("%s %s", what, filepath.Base(path)); err != nil {
		return err
	}
	err := remove(path)
	if err == nil && filepath.Base(filepath.Dir(path)) != tempDir {
		p.change(path, entry{})
		delete(p.ids, path)
	}
	return err
}

func (p *power) OpenDir(path string) (directory, error) {
	d, err := p.system.OpenDir(path)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return &powerDir{directory: d, p: p, id: p.id(path), name: filepath.Base(path)}, nil
}

type powerDir struct {
	directory
	p    *power
	id   int
	name string
}

func (d *powerDir) Sync() error {
	d.p.mu.Lock()
	defer d.p.mu.Unlock()
	if err := d.p.call("sync %s", d.name); err != nil {
		return err
	}
	if d.p.stable[d.id] == nil {
		d.p.stable[d.id] = map[string]entry{}
	}
	maps.Copy(d.p.stable[d.id], d.p.fresh[d.id])
	delete(d.p.fresh, d.id)
	return d.directory.Sync()
}

// after is what the loss of power leaves below root: names and contents of the objects that durable entries lead to.
func (p *power) after(root string) map[string]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	made := p.stable[p.id(filepath.Dir(filepath.Dir(root)))][filepath.Base(filepath.Dir(root))]
	left := map[string]string{}
	p.collect(p.stable[made.dir][filepath.Base(root)].dir, "", left)
	return left
}

func (p *power) collect(dir int, prefix string, left map[string]string) {
	for name, e := range p.stable[dir] {
		if e.dir != 0 {
			p.collect(e.dir, prefix+name+"/", left)
		} else if e.content != "" {
			left[prefix+name] = e.content
		}
	}
}

func openOn(t *testing.T, d disk) (*Storage, string) {
	t.Helper()
	root := filepath.Join(t.TempDir(), "made", "repo")
	s, err := create(root, d)
	if err != nil && !errors.Is(err, errPower) {
		t.Fatal(err)
	}
	if s != nil {
		t.Cleanup(s.dirs.close)
	}
	return s, root
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
