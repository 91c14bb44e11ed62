package strictyaml

import (
	"strings"
	"testing"
)

type doc struct {
	Name  string         `yaml:"name"`
	Parts map[string]sub `yaml:"parts"`
}

type sub struct {
	Depth int `yaml:"depth"`
}

func TestDecode(t *testing.T) {
	t.Parallel()
	var d doc
	if err := Decode("a.yaml", 1, []byte("name: x\nparts:\n  p: {depth: 3}\n"), &d); err != nil || d.Parts["p"].Depth != 3 {
		t.Fatalf("got %+v, %v", d, err)
	}
}

func TestDecodeNamesTheProblem(t *testing.T) {
	t.Parallel()
	cases := map[string]struct{ src, want string }{
		"unknown key":  {"name: x\nparts:\n  p:\n    dept: 3\n", `a.yaml:13:5: unknown key "dept" (did you mean "depth"?)`},
		"wrong type":   {"name: x\nparts:\n  p: {depth: deep}\n", "a.yaml:12:14: text stands where a whole number is expected"},
		"doubled key":  {"name: x\nname: y\n", `a.yaml:11:1`},
		"broken":       {"name: [x\n", "a.yaml:10:"},
		"far from all": {"zzzzzzzz: 1\n", `unknown key "zzzzzzzz"`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var d doc
			err := Decode("a.yaml", 10, []byte(c.src), &d)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
		})
	}
}
