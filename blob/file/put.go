package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/toolboxai/relight/blob"
)

// Put stores the rest of body under name.
func (s *Storage) Put(ctx context.Context, name string, body io.ReadSeeker, o blob.PutOptions) error {
	if err := s.ready(ctx, name); err != nil {
		return s.fail("put", name, err)
	}
	if err := s.present(); err != nil {
		return s.fail("put", name, err)
	}
	s.sweep.Do(s.sweepTemp)
	if err := s.put(ctx, s.path(name), body, o.Replace); err != nil {
		return s.fail("put", name, err)
	}
	return nil
}

func (s *Storage) put(ctx context.Context, path string, body io.Reader, replace bool) error {
	if err := s.taken(path, replace); err != nil {
		return err // before a large body is written for nothing
	}
	temp, err := s.write(ctx, body)
	if err != nil {
		return err
	}
	if err := s.place(temp, path, replace); err != nil {
		_ = s.disk.Remove(temp) // swept later if this fails too; err is what matters
		return err
	}
	return nil
}

// taken says that path cannot be written. What is there is made durable first: a caller may acknowledge equal bytes
// that a writer placed before it died.
func (s *Storage) taken(path string, replace bool) error {
	info, err := s.disk.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return nested(err)
	case info.IsDir():
		return fmt.Errorf("%w: objects lie below it", blob.ErrName)
	case replace:
		return nil
	}
	if err := s.dirs.seal(filepath.Dir(path)); err != nil {
		return err
	}
	return blob.ErrExists
}

// write makes a synced temporary file of body.
func (s *Storage) write(ctx context.Context, body io.Reader) (string, error) {
	dir := filepath.Join(s.root, tempDir)
	if err := s.dirs.ensure(dir); err != nil {
		return "", err
	}
	f, err := s.disk.CreateTemp(dir)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(f, blob.Cancellable(ctx, body))
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = ctx.Err()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		_ = s.disk.Remove(f.Name()) // swept later if this fails too; err is what matters
		return "", err
	}
	return f.Name(), nil
}

func (s *Storage) place(temp, path string, replace bool) error {
	dir := filepath.Dir(path)
	move := s.disk.Place
	if replace {
		move = s.disk.Replace
	}
	var err error
	for range tries {
		if err = s.dirs.ensure(dir); err != nil {
			return nested(err)
		}
		if err = move(temp, path); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return s.refused(path, replace, err)
	}
	return s.dirs.seal(dir)
}

// refused explains why the move failed: another writer was first, or a directory has the name.
func (s *Storage) refused(path string, replace bool, cause error) error {
	if errors.Is(cause, fs.ErrExist) || errors.Is(cause, syscall.EISDIR) {
		if err := s.taken(path, replace); err != nil {
			return err
		}
	}
	return nested(cause)
}

// nested names the reason when a parent of an object's path turns out to be a file.
func nested(err error) error {
	if errors.Is(err, syscall.ENOTDIR) {
		return fmt.Errorf("%w: a part of it is an object itself", blob.ErrName)
	}
	return err
}

// sweepTemp removes what writers that died left behind, once per opened storage. It only tidies: what it cannot
// remove does no harm.
func (s *Storage) sweepTemp() {
	dir := filepath.Join(s.root, tempDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && info.Mode().IsRegular() && s.now().Sub(info.ModTime()) > tempAge {
			_ = s.disk.Remove(filepath.Join(dir, e.Name()))
		}
	}
}
