package house

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

const page = "# The house\n\n| rank | room | holds |\n|---|---|---|\n| 10 | `cmd/relight` | main |\n| 8 | `app` | joins |\n| 6 | `runbook` | x |\n" +
	"| 3 | `store/…` | x |\n| 3 | `network` | x |\n| 2 | `repo` | x |\n| 1 | `blob/…` | x |\n| 1 | `demo/bank` | x |\n| 7 | `demo` | x |\n| 0 | `relight` (root) | words |\n\ntext | 5 | `no` |\n"

func fixture(t *testing.T) Table {
	t.Helper()
	table, err := ReadTable(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestReadTable(t *testing.T) {
	t.Parallel()
	table := fixture(t)
	if len(table) != 10 {
		t.Errorf("%d rows: %v", len(table), table)
	}
	for path, want := range map[string]int{"": 0, "store": 3, "store/postgres/walfile": 3, "cmd/relight": 10, "demo/bank": 1, "demo/bank/x": 1, "demo": 7} {
		if room, ok := table.Of(path); !ok || room.Rank != want {
			t.Errorf("%q: %v, expected rank %d", path, room, want)
		}
	}
	for _, path := range []string{"storefront", "cmd", "no", "cmd/other"} {
		if room, ok := table.Of(path); ok {
			t.Errorf("%q is taken for part of %v", path, room)
		}
	}
	for _, bad := range []string{"", "no table", "| 1 | `a` |\n| 2 | `a/…` |\n"} {
		if table, err := ReadTable(strings.NewReader(bad)); err == nil {
			t.Errorf("%q gives %v", bad, table)
		}
	}
}

func TestCheckImports(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ from, to, why string }{
		{"repo", "blob", ""}, {"repo", "", ""}, {"app", "store/postgres", ""}, {"store/postgres", "store", ""}, {"blob/file", "blob", ""},
		{"store/postgres", "store/postgres/walfile", ""}, {"store/postgres/walfile", "store", ""}, {"demo", "demo/bank", ""},
		{"internal/pgtest", "app", ""}, {"blob/blobtest", "blob/file", ""},
		{"blob", "repo", "rank 1 may not import rank 2"}, {"", "blob", "rank 0 may not import rank 1"},
		{"store/postgres", "network", "one rank (3)"}, {"network", "store/postgres", "one rank (3)"},
		{"blob", "blob/file", "its children"}, {"blob/file", "blob/mem", "children of one room"},
		{"store/postgres", "store/redis/rdb", "children of one room"}, {"store", "store/postgres/walfile", "its children"},
		{"demo/bank", "demo", "rank 1 may not import rank 7"},
		{"app", "unheard", "no row"}, {"unheard", "blob", "no row"}, {"app", "internal/pgtest", "only tests"}, {"app", "blob/blobtest", "only tests"},
	} {
		found := fixture(t).CheckImports([]Package{{Path: c.from, Imports: []string{c.to}}})
		switch {
		case c.why == "" && len(found) > 0:
			t.Errorf("%s → %s is allowed, but: %v", c.from, c.to, found)
		case c.why != "" && (len(found) != 1 || !strings.Contains(found[0], c.why)):
			t.Errorf("%s → %s: found %q, expected %q", c.from, c.to, found, c.why)
		}
	}
}

func body(lines int) string {
	return "// Package x.\npackage x\n\nfunc f() {\n" + strings.Repeat("\t_ = 1\n", lines) + "}\n"
}

func TestCheckPackage(t *testing.T) {
	t.Parallel()
	const head = "// Package x.\npackage x\n\n"
	for _, c := range []struct{ path, source, why string }{
		{"repo/a.go", head, ""},
		{"repo/a.go", "package x\n", "0 package comments"},
		{"repo/a.go", head + "func init() {}\n", "func init"},
		{"repo/a.go", head + "type t int\n\nfunc (t) init() {}\n", ""},
		{"repo/a.go", "// Package util.\npackage util\n", "says nothing"},
		{"repo/a.go", head + "import \"os\"\n\nfunc f() { os.Exit(1) }\n", "repo/a.go:6: os.Exit"},
		{"cmd/relight/a.go", head + "import \"os\"\n\nfunc f() { os.Exit(1) }\n", ""},
		{"app/a.go", head + "import \"log\"\n\nfunc f() { log.Fatalf(\"\") }\n", "log.Fatalf"},
		{"repo/a.go", head + "import \"time\"\n\nvar t = time.Now()\n", "time.Now"},
		{"repo/a.go", head + "import \"time\"\n\nfunc f(t time.Time) { time.Since(t) }\n", "time.Since"},
		{"repo/a.go", head + "import clock \"time\"\n\nvar t = clock.Now()\n", "time.Now"},
		{"repo/a.go", head + "import \"time\"\n\nvar now = time.Now\n", ""},
		{"app/a.go", head + "import \"time\"\n\nvar t = time.Now()\n", ""},
		{"internal/pgtest/a.go", head + "import \"time\"\n\nvar t = time.Now()\n", ""},
		{"app/a.go", head + "import \"os\"\n\nvar w = os.Stderr\n", "os.Stderr"},
		{"app/a.go", head + "import \"fmt\"\n\nfunc f() { fmt.Println() }\n", "fmt.Println"},
		{"app/a.go", head + "import \"fmt\"\n\nvar s = fmt.Sprint()\n", ""},
		{"repo/a.go", body(MaxFunction), ""},
		{"repo/a.go", body(MaxFunction + 1), "101 lines"},
		{"repo/a.go", head + strings.Repeat("// x\n", MaxFile), "at most 500"},
		{"cmd/relight/a.go", head + strings.Repeat("// x\n", MaxMain), "at most 40"},
	} {
		found, err := CheckPackage(fixture(t), []File{{Path: c.path, Source: []byte(c.source)}})
		if err != nil {
			t.Errorf("%s: %v", c.why, err)
		}
		switch {
		case c.why == "" && len(found) > 0:
			t.Errorf("%s %q: found %q", c.path, c.source, found)
		case c.why != "" && !slices.ContainsFunc(found, func(f string) bool { return strings.Contains(f, c.why) }):
			t.Errorf("%s %.60q: found %q, expected %q", c.path, c.source, found, c.why)
		}
	}
}

func TestOnePackageComment(t *testing.T) {
	t.Parallel()
	for comments, want := range map[int]int{0: 1, 1: 0, 2: 1} {
		var files []File
		for i := range 3 {
			source := "package x\n"
			if i < comments {
				source = "// Package x.\n" + source
			}
			files = append(files, File{Path: fmt.Sprintf("repo/%d.go", i), Source: []byte(source)})
		}
		found, err := CheckPackage(fixture(t), files)
		if err != nil || len(found) != want {
			t.Errorf("%d comments: found %q, %v", comments, found, err)
		}
	}
	if _, err := CheckPackage(fixture(t), []File{{Path: "repo/a.go", Source: []byte("pack")}}); err == nil {
		t.Error("a file that does not parse was accepted")
	}
}
