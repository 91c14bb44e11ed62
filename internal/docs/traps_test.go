package docs

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

const traps = 30 // of PostgreSQL

// docs/traps.md has a row for each trap, names tests that exist, and names every test that bears a trap's number.
func TestTrapsNameTheirTests(t *testing.T) {
	t.Parallel()
	source, rows := testFunctions(t), map[string]string{}
	for line := range strings.Lines(read(t, "docs/traps.md")) {
		if m := regexp.MustCompile(`^\| (\d\d) \|`).FindStringSubmatch(line); m != nil {
			rows[m[1]] = line
		}
	}
	for n := 1; n <= traps; n++ {
		number := fmt.Sprintf("%02d", n)
		row := rows[number]
		if !strings.Contains(row, "`TestTrap"+number) && !strings.Contains(row, "does not apply") {
			t.Errorf("trap %s has no test of its number: %q", number, row)
		}
		for _, m := range regexp.MustCompile("`(Test[A-Za-z0-9]+)`").FindAllStringSubmatch(row, -1) {
			if source[m[1]] == 0 {
				t.Errorf("docs/traps.md names %s, which no package has", m[1])
			}
		}
	}
	for name := range source {
		if m := regexp.MustCompile(`^TestTrap(\d\d)`).FindStringSubmatch(name); m != nil && !strings.Contains(rows[m[1]], "`"+name+"`") {
			t.Errorf("docs/traps.md does not name %s", name)
		}
	}
}
