package cli

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
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
			args := append(strings.Fields(c.CommandPath())[1:], "--help")
			if got := Main(t.Context(), args, Streams{In: strings.NewReader(""), Out: &out, Err: &said}); got != 0 || said.Len() > 0 || !strings.Contains(out.String(), "Examples:") {
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
	quoted := regexp.MustCompile("`(relight [^`\n]+)`")
	fenced := regexp.MustCompile(`(?m)^\s*(?:\$ )(relight [^\n|>#]+)`)
	found := 0
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "bin" || d.Name() == "testdata" || (strings.HasPrefix(d.Name(), ".") && d.Name() != "..")) {
			return filepath.SkipDir
		}
		if ext := filepath.Ext(path); d.IsDir() || (ext != ".go" && ext != ".md") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range slices.Concat(quoted.FindAllStringSubmatch(string(text), -1), fenced.FindAllStringSubmatch(string(text), -1)) {
			found++
			line, _, _ := strings.Cut(m[1], `" +`) // the rest is put in when the program runs
			if problem := wellFormed(line); problem != "" {
				t.Errorf("%s: `%s`: %s", path, m[1], problem)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found < 20 {
		t.Errorf("only %d command lines were found: the search is broken", found)
	}
}

// wellFormed says what is wrong with a command line as people are shown it: a command or flag that does not exist.
func wellFormed(line string) string {
	_, line, ok := strings.Cut(line, "relight ")
	if !ok {
		return "" // it continues another line
	}
	line = regexp.MustCompile(`\s[|>]\s.*`).ReplaceAllString(line, "")
	line = regexp.MustCompile(`'[^']*'|"[^"]*"|\\"[^"]*\\"`).ReplaceAllString(line, "x")
	c, rest := commands(), strings.Fields(line)
	for len(rest) > 0 {
		next := find(c, strings.Trim(rest[0], ".,;:)"))
		if next == nil {
			break
		}
		c, rest = next, rest[1:]
	}
	if len(rest) > 0 && c.HasSubCommands() && !strings.HasPrefix(rest[0], "-") {
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
