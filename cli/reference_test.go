package cli

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "write docs/commands.md anew")

const referencePath = "../docs/commands.md"

// docs/commands.md says what the binary says.
func TestReference(t *testing.T) {
	t.Parallel()
	want := reference(commands())
	if *update {
		if err := os.WriteFile(referencePath, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(referencePath)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("docs/commands.md is stale: go test ./cli -run TestReference -update\nfirst difference: %s", firstDifference(string(got), string(want)))
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d is %q, expected %q", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines, expected %d", len(g), len(w))
}

const referenceHead = `# Commands

Written by ` + "`go test ./cli -run TestReference -update`" + ` from the command line itself; a test fails when the two differ. Everything a command says about itself is here.

What was asked for goes to stdout, everything else to stderr. With ` + "`--json`" + ` stdout is one JSON object a line, each with a ` + "`type`" + `; members are only ever added.
An error ends with ` + "`error:`" + ` and, where there is a way on, ` + "`hint:`" + `.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | failed, or nothing found |
| 2 | the command line or the configuration is wrong; nothing was touched |
| 3 | recovered, but an objective was missed |
| 4 | waiting for a person |
| 5 | aborted |
| 6 | verification failed |
| 7 | the plan changed since it was confirmed or approved |
| 8 | a lease is held by another process |

`

// reference is the whole tree of commands as a page.
func reference(root *cobra.Command) []byte {
	var b bytes.Buffer
	b.WriteString(referenceHead)
	b.WriteString("## Flags of every command\n\n")
	flagTable(&b, root.PersistentFlags())
	b.WriteString("## All commands\n\n| command | what it does |\n|---|---|\n")
	each(root, func(c *cobra.Command) {
		if documented(c) {
			fmt.Fprintf(&b, "| [%s](#%s) | %s |\n", c.CommandPath(), strings.ReplaceAll(c.CommandPath(), " ", "-"), c.Short)
		}
	})
	each(root, func(c *cobra.Command) {
		if documented(c) {
			section(&b, c)
		}
	})
	return b.Bytes()
}

// documented leaves out groups, whose children say it all, and the completion scripts.
func documented(c *cobra.Command) bool {
	return !c.Hidden && !c.HasSubCommands() && (c.Parent() == nil || c.Parent().Name() != "completion")
}

func section(b *bytes.Buffer, c *cobra.Command) {
	fmt.Fprintf(b, "\n## %s\n\n", c.CommandPath())
	text := c.Long
	if text == "" {
		text = c.Short
	}
	fmt.Fprintf(b, "%s\n\n```\n%s\n```\n\n", strings.TrimSpace(text), c.UseLine())
	flagTable(b, c.NonInheritedFlags())
	if c.Example != "" {
		fmt.Fprintf(b, "```sh\n%s\n```\n", undent(c.Example))
	}
}

func undent(text string) string {
	var lines []string
	for line := range strings.SplitSeq(strings.Trim(text, "\n"), "\n") {
		lines = append(lines, strings.TrimPrefix(line, "  "))
	}
	return strings.Join(lines, "\n")
}

func flagTable(b *bytes.Buffer, flags *pflag.FlagSet) {
	var rows []string
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Name != "help" && !f.Hidden {
			rows = append(rows, flagRow(f))
		}
	})
	if len(rows) > 0 {
		fmt.Fprintf(b, "| flag | takes | default | what |\n|---|---|---|---|\n%s\n", strings.Join(rows, ""))
	}
}

func flagRow(f *pflag.Flag) string {
	takes, usage := pflag.UnquoteUsage(f)
	preset := f.DefValue
	switch {
	case takes == "": // a switch
		preset = ""
	case preset == "[]" || f.Name == "confirm" || f.Name == "host": // the environment's, this machine's
		preset = ""
	}
	name := "--" + f.Name
	if f.Shorthand != "" {
		name = "-" + f.Shorthand + ", " + name
	}
	return fmt.Sprintf("| `%s` | %s | %s | %s |\n", name, takes, preset, strings.ReplaceAll(usage, "|", "\\|"))
}
