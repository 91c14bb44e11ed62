package cli

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func commands() *cobra.Command {
	s := &session{Streams: Streams{In: strings.NewReader(""), Out: &bytes.Buffer{}, Err: &bytes.Buffer{}}}
	return s.root()
}

// Every command explains itself: a title, an example that is itself a right command line, and a help that ends well.
func TestHelp(t *testing.T) {
	t.Parallel()
	each(commands(), func(c *cobra.Command) {
		if c.Hidden || (c.HasSubCommands() && c.HasParent()) {
			return
		}
		t.Run(c.CommandPath(), func(t *testing.T) {
			t.Parallel()
			if c.Short == "" || !strings.Contains(c.Example, c.CommandPath()) {
				t.Errorf("short %q, example %q", c.Short, c.Example)
			}
			for _, line := range strings.Split(c.Example, "\n") {
				if err := wellFormed(strings.TrimSpace(line)); err != "" {
					t.Errorf("example %q: %s", line, err)
				}
			}
			var out, said bytes.Buffer
			if got := Main(t.Context(), append(strings.Fields(c.CommandPath()), "--help"), Streams{In: strings.NewReader(""), Out: &out, Err: &said}); got != 0 || said.Len() > 0 || !strings.Contains(out.String(), "Examples:") {
				t.Errorf("exit code %d\n%s\n%s", got, &out, &said)
			}
			c.LocalFlags().VisitAll(func(f *pflag.Flag) {
				if f.Usage == "" {
					t.Errorf("--%s has no help", f.Name)
				}
			})
		})
	})
}

// Hints, help and pages name commands and flags that exist.
func TestNamedCommandsExist(t *testing.T) {
	t.Parallel()
	found := 0
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == referencePath { // TestHelp has seen its lines
			return nil
		}
		if d.IsDir() && (d.Name() == "bin" || d.Name() == "testdata" || (strings.HasPrefix(d.Name(), ".") && d.Name() != "..")) {
			return filepath.SkipDir
		}
		if d.IsDir() || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		var lines []string
		switch filepath.Ext(path) {
		case ".md":
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			lines = namedInPage(string(text))
		case ".go":
			if lines, err = namedInSource(path); err != nil {
				return err
			}
		}
		for _, line := range lines {
			found++
			if problem := wellFormed(line); problem != "" {
				t.Errorf("%s: `%s`: %s", path, line, problem)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found < 150 {
		t.Errorf("only %d command lines were found: the search is broken", found)
	}
}

var (
	inQuotes = regexp.MustCompile("`(relight [^`\n]+)`")
	inFence  = regexp.MustCompile(`(?:^|\s|\()(relight (?:-|[a-z])[^\n)#]*)`)
	inText   = regexp.MustCompile(`(?:^|[^/\w-])(relight ([a-z-]+)[^\n]*)`)
	wordEnd  = regexp.MustCompile(`[,;(]|:( |$)|\.( |$)| (shows?|lists?|says?|and) |   |&&|<`)
)

// namedInPage finds the command lines of a Markdown page: between backquotes, and in fences that a shell could read.
func namedInPage(text string) []string {
	var found []string
	fence, shell := false, false
	for line := range strings.SplitSeq(text, "\n") {
		if mark, ok := strings.CutPrefix(strings.TrimSpace(line), "```"); ok {
			fence, shell = !fence, slices.Contains([]string{"", "sh", "console"}, mark)
			continue
		}
		pattern := inQuotes
		if fence {
			pattern = inFence
		}
		if fence && !shell {
			continue
		}
		for _, m := range pattern.FindAllStringSubmatch(line, -1) {
			if !fence || find(commands(), strings.Fields(m[1])[1]) != nil || strings.HasPrefix(strings.TrimPrefix(strings.TrimSpace(line), "$ "), "relight ") {
				found = append(found, m[1])
			}
		}
	}
	return found
}

// namedInSource finds the command lines in a program's texts. In backquotes, and in a hint, whatever follows "relight" must be a command; in other
// texts a word that is no command is taken for prose.
func namedInSource(path string) ([]string, error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var found []string
	var text func(n ast.Node, strict bool)
	text = func(n ast.Node, strict bool) {
		ast.Inspect(n, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.KeyValueExpr:
				if key, ok := n.Key.(*ast.Ident); ok && key.Name == "Hint" && !strict {
					text(n.Value, true)
					return false
				}
			case *ast.BasicLit:
				if s, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING {
					found = append(found, namedInText(s, strict)...)
				}
			}
			return true
		})
	}
	text(file, false)
	return found, nil
}

func namedInText(text string, strict bool) []string {
	var found []string
	for _, m := range inQuotes.FindAllStringSubmatch(text, -1) {
		found = append(found, m[1])
	}
	for _, m := range inText.FindAllStringSubmatch(inQuotes.ReplaceAllString(text, ""), -1) {
		if find(commands(), m[2]) == nil && (!strict || slices.Contains(prose, m[2])) {
			continue
		}
		line, _, _ := strings.Cut(m[1], "`") // a quotation that goes on beyond this literal
		if end := wordEnd.FindStringIndex(line); end != nil {
			line = line[:end[0]]
		}
		found = append(found, strings.TrimSpace(line))
	}
	return found
}

// prose is what follows relight's name in hints that speak of it and name no command.
var prose = strings.Fields("approval as binary changes died does exported has identity is must reads repository runs where")

func TestNamed(t *testing.T) {
	t.Parallel()
	page := "see `relight nope` and relight prose\n```sh\nx=$(relight status --json) # relight prose\nrelight nope --x\n```\n```yaml\nrelight: x\n```\n"
	if got := namedInPage(page); !slices.Equal(got, []string{"relight nope", "relight status --json", "relight nope --x"}) {
		t.Errorf("in a page: %q", got)
	}
	path := filepath.Join(t.TempDir(), "x.go")
	source := "package x\n\nvar x = []string{\"relight is\", \"relight nope\", \"`relight repo nope` shows\", \"/usr/bin/relight x\", \"see `relight run \"}\n\nvar y = e{Hint: \"relight is new\"+f(\"try relight nope --y, or not\")}\n"
	if err := os.WriteFile(path, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := namedInSource(path); err != nil || !slices.Equal(got, []string{"relight repo nope", "relight run", "relight nope --y"}) {
		t.Errorf("in a source: %q, %v", got, err)
	}
}

// wellFormed says what is wrong with a command line as people are shown it: a command or flag that does not exist.
func wellFormed(line string) string {
	_, line, ok := strings.Cut(line, "relight ")
	if !ok {
		return "" // it continues another line
	}
	line = regexp.MustCompile(`\s(\|\|?|&&|>)\s.*`).ReplaceAllString(line, "")
	line = regexp.MustCompile(`'[^']*'|"[^"]*"|\\"[^"]*\\"`).ReplaceAllString(line, "x")
	c, rest := commands(), strings.Fields(line)
	for len(rest) > 0 {
		next := find(c, strings.Trim(rest[0], ".,;:)"))
		if next == nil {
			break
		}
		c, rest = next, rest[1:]
	}
	if len(rest) > 0 && c.HasSubCommands() && !strings.HasPrefix(rest[0], "-") && rest[0] != "%s" { // that is put in when the program runs
		return "there is no command " + rest[0]
	}
	c.InheritedFlags() // joins the parents' flags
	for _, word := range rest {
		name, ok := strings.CutPrefix(word, "--")
		name, _, _ = strings.Cut(strings.Trim(name, ".,;:)"), "=")
		if ok && name != "help" && c.Flags().Lookup(name) == nil && c.InheritedFlags().Lookup(name) == nil {
			return "there is no flag --" + name
		}
	}
	if c.ParseFlags(rest) == nil && len(strings.Fields(c.Use)) == 1 && c.Flags().NArg() > 0 && !c.HasSubCommands() {
		return "it takes no argument " + c.Flags().Arg(0)
	}
	return ""
}

func TestWellFormed(t *testing.T) {
	t.Parallel()
	for line, bad := range map[string]bool{
		"relight repo info": false, "relight repo nope": true, "relight nope": true, "relight repo info --nope": true,
		"relight repo init --recipient age1… --confirm x": false, "relight --config x status": false, "relight key revoke db --keep=x": false,
		"relight repo init file:///x": true,
	} {
		if got := wellFormed(line); (got != "") != bad {
			t.Errorf("%q: %q", line, got)
		}
	}
}
