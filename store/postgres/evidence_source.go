package postgres

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// evidenceSource is all that belongs to a cluster: its data directory, and what links of it lead to.
type evidenceSource struct {
	trees   []evidenceTree
	size    int64
	missing []string // links that lead nowhere
}

// evidenceTree is a directory that is kept under a name.
type evidenceTree struct{ dir, name string }

// linkedDir is where the copy holds what links lead to, each under the link's own path. The links themselves stay links: unpacked beside a live server, what is below
// them would be written into its tablespaces.
const linkedDir = "linked"

func evidenceOf(data string) (evidenceSource, error) {
	data, err := filepath.EvalSymlinks(data)
	if err != nil {
		return evidenceSource{}, err
	}
	s := evidenceSource{trees: []evidenceTree{{dir: data}}}
	links, err := outsideLinks(data)
	if err != nil {
		return s, err
	}
	for _, link := range links {
		dir, err := filepath.EvalSymlinks(filepath.Join(data, link))
		if errors.Is(err, fs.ErrNotExist) {
			s.missing = append(s.missing, link)
			continue
		}
		if err != nil {
			return s, err
		}
		s.trees = append(s.trees, evidenceTree{dir: dir, name: filepath.Join(linkedDir, link)})
	}
	for _, t := range s.trees {
		size, err := treeSize(t.dir)
		if err != nil {
			return s, err
		}
		s.size += size
	}
	return s, nil
}

// outsideLinks are the links of a data directory that the server follows: of tablespaces, and of its log.
func outsideLinks(data string) ([]string, error) {
	var links []string
	info, err := os.Lstat(filepath.Join(data, walDir))
	if err == nil && info.Mode()&fs.ModeSymlink != 0 {
		links = append(links, walDir)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Join(data, tblspcDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if e.Type()&fs.ModeSymlink != 0 {
			links = append(links, filepath.Join(tblspcDir, e.Name()))
		}
	}
	return links, nil
}
