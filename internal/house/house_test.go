package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/toolboxai/relight"

// root is the module's directory, two above this package's.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func table(t *testing.T) Table {
	t.Helper()
	f, err := os.Open(filepath.Join(root(t), "docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	table, err := ReadTable(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return table
}

// listed is what the go command says of one package.
type listed struct {
	ImportPath, Dir string
	GoFiles         []string
	IgnoredGoFiles  []string // for other systems
	Imports         []string
}

func list(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Dir,GoFiles,IgnoredGoFiles,Imports", "./...")
	cmd.Dir = root(t)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var pkgs []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
	if len(pkgs) < 5 {
		t.Fatalf("only %d packages found", len(pkgs))
	}
	return pkgs
}

func relative(importPath string) (string, bool) {
	rest, mine := strings.CutPrefix(importPath, module)
	return strings.TrimPrefix(rest, "/"), mine
}

func TestImportsPointDown(t *testing.T) {
	t.Parallel()
	var pkgs []Package
	for _, l := range list(t) {
		path, _ := relative(l.ImportPath)
		p := Package{Path: path}
		for _, i := range l.Imports {
			if target, mine := relative(i); mine {
				p.Imports = append(p.Imports, target)
			}
		}
		pkgs = append(pkgs, p)
	}
	for _, finding := range table(t).CheckImports(pkgs) {
		t.Error(finding)
	}
}

func TestSourceKeepsTheRules(t *testing.T) {
	t.Parallel()
	rooms, dir := table(t), root(t)
	for _, l := range list(t) {
		var files []File
		for _, name := range append(l.GoFiles, l.IgnoredGoFiles...) {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			full := filepath.Join(l.Dir, name)
			source, err := os.ReadFile(full)
			if err != nil {
				t.Fatal(err)
			}
			path, err := filepath.Rel(dir, full)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, File{Path: filepath.ToSlash(path), Source: source})
		}
		found, err := CheckPackage(rooms, files)
		if err != nil {
			t.Error(err)
		}
		for _, finding := range found {
			t.Error(finding)
		}
	}
}
