package house

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"slices"
	"strings"
)

// The longest that a file and a function may be, in lines. They are limits, not aims: the aims are 150 and 10.
const (
	MaxFile     = 500
	MaxFunction = 100
	MaxMain     = 40
)

// File is one source file without tests. Path is relative to the module.
type File struct {
	Path   string
	Source []byte
}

// drawers are package names that say nothing of what is inside.
func drawers() []string {
	return []string{"util", "utils", "common", "helper", "helpers", "model", "models", "misc", "shared", "pkg", "base", "lib"}
}

// CheckPackage returns a sentence for every rule that the files of one package break.
func CheckPackage(t Table, files []File) ([]string, error) {
	var found []string
	comments := 0
	for _, f := range files {
		set := token.NewFileSet()
		tree, err := parser.ParseFile(set, f.Path, f.Source, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, fmt.Errorf("parse: %w", err)
		}
		if tree.Doc != nil {
			comments++
		}
		found = append(found, checkFile(t, f, set, tree)...)
	}
	if comments != 1 && len(files) > 0 {
		found = append(found, fmt.Sprintf("%s: %d package comments, expected one", path.Dir(files[0].Path), comments))
	}
	return found, nil
}

func checkFile(t Table, f File, set *token.FileSet, tree *ast.File) []string {
	c := &checker{set: set, imports: imported(tree)}
	c.room, _ = t.Of(directory(f.Path))
	c.support = Support(directory(f.Path))
	lines := set.File(tree.Pos()).LineCount()
	if lines > MaxFile {
		c.report(tree, "%d lines, at most %d", lines, MaxFile)
	}
	if strings.HasPrefix(f.Path, "cmd/") && lines > MaxMain {
		c.report(tree, "%d lines, a command has at most %d", lines, MaxMain)
	}
	if slices.Contains(drawers(), tree.Name.Name) {
		c.report(tree, "package %s says nothing of what is inside", tree.Name.Name)
	}
	for _, d := range tree.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok {
			c.function(fn)
		}
	}
	ast.Inspect(tree, c.visit)
	return c.found
}

func directory(file string) string {
	if dir := path.Dir(file); dir != "." {
		return dir
	}
	return ""
}

// checker walks one file.
type checker struct {
	set     *token.FileSet
	imports map[string]string // name in the file → import path
	room    Room
	support bool
	found   []string
}

func (c *checker) report(n ast.Node, format string, args ...any) {
	p := c.set.Position(n.Pos())
	c.found = append(c.found, fmt.Sprintf("%s:%d: %s", p.Filename, p.Line, fmt.Sprintf(format, args...)))
}

func (c *checker) function(fn *ast.FuncDecl) {
	if fn.Name.Name == "init" && fn.Recv == nil {
		c.report(fn, "func init: register in an explicit function")
	}
	if fn.Body == nil {
		return
	}
	if n := c.set.Position(fn.Body.Rbrace).Line - c.set.Position(fn.Body.Lbrace).Line - 1; n > MaxFunction {
		c.report(fn, "function %s has %d lines, at most %d", fn.Name.Name, n, MaxFunction)
	}
}

// visit looks at calls for those that only the edges may make. A function that is named without being called
// (now: time.Now) is a constructor's default, which is allowed.
func (c *checker) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.CallExpr:
		if pkg, fn := c.names(n.Fun); pkg != "" && !c.support {
			c.call(n, pkg, fn)
		}
	case *ast.SelectorExpr:
		pkg, v := c.names(n)
		if pkg == "os" && (v == "Stdout" || v == "Stderr" || v == "Stdin") && c.room.Rank < 10 && !c.support {
			c.report(n, "os.%s: streams are passed in by the command", v)
		}
	}
	return true
}

func (c *checker) call(n ast.Node, pkg, fn string) {
	switch {
	case pkg == "os" && fn == "Exit", pkg == "log" && strings.HasPrefix(fn, "Fatal"):
		if c.room.Rank < 10 {
			c.report(n, "%s.%s: only a command ends the process", pkg, fn)
		}
	case pkg == "fmt" && strings.HasPrefix(fn, "Print"), pkg == "log" && strings.HasPrefix(fn, "Print"):
		if c.room.Rank < 10 {
			c.report(n, "%s.%s: streams are passed in by the command", pkg, fn)
		}
	case pkg == "time" && (fn == "Now" || fn == "Since" || fn == "Until"):
		if c.room.Rank < 7 {
			c.report(n, "time.%s: the clock is passed in", fn)
		}
	}
}

// names resolves pkg.Name to the import path and the name; "" for anything else.
func (c *checker) names(e ast.Expr) (string, string) {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok {
		return "", ""
	}
	id, ok := sel.X.(*ast.Ident)
	if !ok {
		return "", ""
	}
	return c.imports[id.Name], sel.Sel.Name
}

func imported(tree *ast.File) map[string]string {
	names := map[string]string{}
	for _, spec := range tree.Imports {
		target := strings.Trim(spec.Path.Value, `"`)
		local := path.Base(target)
		if spec.Name != nil {
			local = spec.Name.Name
		}
		names[local] = target
	}
	return names
}
