package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/toolboxai/relight/estate"
)

const root = "../.."

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestReading(t *testing.T) {
	t.Parallel()
	page := "# A\n\nx\n\n## B\n```sh\n# no heading\nls\n```\n### C\n```yaml\na: b\n```\n```sh\npwd\n```\n## D\n```sh\nno\n```\n[a](b.md#c)"
	part, err := Section(page, "B")
	if err != nil || !strings.Contains(part, "pwd") || strings.Contains(part, "no\n```") {
		t.Errorf("section: %q, %v", part, err)
	}
	if got := Fences(part, "sh"); !slices.Equal(got, []string{"# no heading\nls\n", "pwd\n"}) {
		t.Errorf("fences: %q", got)
	}
	if got := Links(page); !slices.Equal(got, []string{"b.md#c"}) {
		t.Errorf("links: %q", got)
	}
	if _, err := Section(page, "E"); err == nil {
		t.Error("a heading that is not there was found")
	}
}

// docs/configuration.md has a row for every key that relight.yaml may hold, and for none that it may not.
func TestEveryKeyIsDocumented(t *testing.T) {
	t.Parallel()
	page := read(t, "docs/configuration.md")
	known := yamlKeys(t)
	if len(known) < 40 {
		t.Errorf("only %d keys were found: the search is broken", len(known))
	}
	for key := range known {
		if !strings.Contains(page, "| `"+key+"` |") {
			t.Errorf("key %s has no row", key)
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(page, -1) {
		if !known[m[1]] {
			t.Errorf("row %s names no key", m[1])
		}
	}
}

func yamlKeys(t *testing.T) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "estate", "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if f, ok := n.(*ast.Field); ok && f.Tag != nil {
				if tag, err := strconv.Unquote(f.Tag.Value); err == nil {
					if key := reflect.StructTag(tag).Get("yaml"); key != "" && key != "-" {
						found[key] = true
					}
				}
			}
			return true
		})
	}
	return found
}

// The pieces of relight.yaml on the page make a file that is read.
func TestConfigurationExamples(t *testing.T) {
	t.Parallel()
	pieces := Fences(read(t, "docs/configuration.md"), "yaml")
	if len(pieces) < 3 {
		t.Fatalf("%d examples were found", len(pieces))
	}
	if _, err := estate.Parse("/relight.yaml", []byte("estate: shop\n"+strings.Join(pieces, ""))); err != nil {
		t.Error(err)
	}
}

// Links between the pages lead to files and headings that exist.
func TestLinks(t *testing.T) {
	t.Parallel()
	pages := []string{"README.md", "CHANGELOG.md"}
	for _, pattern := range []string{"docs/*.md", "docs/decisions/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range found {
			pages = append(pages, strings.TrimPrefix(path, root+"/"))
		}
	}
	for _, page := range pages {
		for _, target := range Links(read(t, page)) {
			if strings.Contains(target, "://") {
				continue
			}
			path, heading, _ := strings.Cut(target, "#")
			where := page
			if path != "" {
				where = filepath.Join(filepath.Dir(page), path)
			}
			info, err := os.Stat(filepath.Join(root, where))
			if err != nil {
				t.Errorf("%s: link to %s: %v", page, target, err)
				continue
			}
			if heading != "" && !info.IsDir() && !slices.Contains(anchors(read(t, where)), heading) {
				t.Errorf("%s: %s has no heading #%s", page, where, heading)
			}
		}
	}
}

// anchors are the names that headings get.
func anchors(page string) []string {
	var found []string
	for line := range strings.SplitSeq(page, "\n") {
		if text := strings.TrimLeft(line, "#"); text != line {
			text = regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(strings.TrimSpace(text)), "")
			found = append(found, strings.ReplaceAll(text, " ", "-"))
		}
	}
	return found
}

// Every decision is in the index, with a line of its own.
func TestDecisions(t *testing.T) {
	t.Parallel()
	index := read(t, "docs/decisions/README.md")
	found, err := filepath.Glob(filepath.Join(root, "docs/decisions/[0-9]*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range found {
		if name := filepath.Base(path); name != "0000-template.md" && !strings.Contains(index, "("+name+")") {
			t.Errorf("docs/decisions/README.md does not name %s", name)
		}
	}
}
