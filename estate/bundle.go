package estate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/toolboxai/relight"
)

// Bundle is an estate packed up: enough for `relight recover` to start on a bare machine. It holds secrets, so it is sealed to the data
// recipient and only the recovery side opens it.
type Bundle struct {
	Format    int               `json:"format"`
	Estate    string            `json:"estate"`
	Directory string            `json:"directory"` // where relight.yaml lay
	Files     []BundleFile      `json:"files"`
	Secrets   map[string]string `json:"secrets,omitempty"` // name → resolved value
}

// BundleFile is one file of the estate.
type BundleFile struct {
	Path string      `json:"path"` // relative to Directory
	Mode fs.FileMode `json:"mode"`
	Data []byte      `json:"data"`
}

// Pack gathers the estate's own files. resolve turns a secret reference into its value.
func (e *Estate) Pack(resolve func(reference string) (string, error)) (Bundle, error) {
	b := Bundle{Format: 1, Estate: e.Name, Directory: e.Directory, Secrets: map[string]string{}}
	paths := []string{e.File}
	if e.Approvers != "" {
		paths = append(paths, e.Approvers)
	}
	if _, err := os.Stat(e.Approvals()); err == nil {
		paths = append(paths, e.Approvals())
	}
	for _, dir := range e.Runbooks {
		found, err := filepath.Glob(filepath.Join(dir, "*.md"))
		if err != nil {
			return Bundle{}, fmt.Errorf("find runbooks in %s: %w", dir, err)
		}
		paths = append(paths, found...)
	}
	for _, path := range paths {
		if err := b.add(path); err != nil {
			return Bundle{}, err
		}
	}
	b.Files[0].Path = FileName // whatever it was called: recovery looks for it under this name
	for name, reference := range e.Secrets {
		value, err := resolve(reference)
		if err != nil {
			return Bundle{}, fmt.Errorf("resolve secret %s: %w", name, err)
		}
		b.Secrets[name] = value
	}
	return b, nil
}

func (b *Bundle) add(path string) error {
	rel, err := filepath.Rel(b.Directory, path)
	if err != nil || !filepath.IsLocal(rel) {
		return &relight.Error{Op: "pack estate", Subject: path, Code: relight.CodeUsage, Err: errors.New("lies outside " + b.Directory),
			Hint: "keep runbooks beside relight.yaml, so that they come back with it"}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("pack estate: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("pack estate: %w", err)
	}
	b.Files = append(b.Files, BundleFile{Path: filepath.ToSlash(rel), Mode: info.Mode().Perm(), Data: data})
	return nil
}

// Encode is the bundle's stored form; equal estates encode equally.
func (b Bundle) Encode() ([]byte, error) {
	slices.SortFunc(b.Files, func(x, y BundleFile) int { return strings.Compare(x.Path, y.Path) })
	return json.Marshal(b)
}

// DecodeBundle reads what Encode wrote.
func DecodeBundle(data []byte) (Bundle, error) {
	var b Bundle
	if err := json.Unmarshal(data, &b); err != nil {
		return Bundle{}, fmt.Errorf("decode estate bundle: %w", err)
	}
	if b.Format != 1 {
		return Bundle{}, fmt.Errorf("decode estate bundle: format %d is newer than this relight", b.Format)
	}
	for _, f := range b.Files {
		if path := filepath.FromSlash(f.Path); !filepath.IsLocal(path) || filepath.Clean(path) != path || path == "." {
			return Bundle{}, fmt.Errorf("decode estate bundle: path %q leads outside", f.Path)
		}
	}
	return b, nil
}

// Unpack writes the bundle's files under dir ("": where they lay) with write, which must make each durable. A file that is there with
// other contents is an error unless force is set: somebody's work is never overwritten in silence.
func (b Bundle) Unpack(dir string, force bool, write func(path string, data []byte, mode fs.FileMode) error) error {
	if dir == "" {
		dir = b.Directory
	}
	if !force {
		if err := b.collisions(dir); err != nil {
			return err
		}
	}
	for _, f := range b.Files {
		path := filepath.Join(dir, filepath.FromSlash(f.Path))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("unpack estate: %w", err)
		}
		if err := write(path, f.Data, f.Mode); err != nil {
			return fmt.Errorf("unpack estate: %w", err)
		}
	}
	return nil
}

func (b Bundle) collisions(dir string) error {
	for _, f := range b.Files {
		path := filepath.Join(dir, filepath.FromSlash(f.Path))
		old, err := os.ReadFile(path)
		if err == nil && string(old) != string(f.Data) {
			return &relight.Error{Op: "unpack estate", Subject: path, Code: relight.CodeUsage, Err: errors.New("a different file is there"),
				Hint: "recover into an empty directory with --directory DIR, or replace it with --force"}
		}
	}
	return nil
}

// Path is where relight.yaml of the bundle lies when it is unpacked under dir ("": where it lay).
func (b Bundle) Path(dir string) string {
	if dir == "" {
		dir = b.Directory
	}
	return filepath.Join(dir, FileName)
}

// Present says whether every file of the bundle is under dir ("": where it lay) as it was kept.
func (b Bundle) Present(dir string) (bool, error) {
	if dir == "" {
		dir = b.Directory
	}
	for _, f := range b.Files {
		data, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(f.Path)))
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("compare the estate: %w", err)
		}
		if string(data) != string(f.Data) {
			return false, nil
		}
	}
	return true, nil
}
