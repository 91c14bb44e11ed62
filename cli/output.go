package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// jsonVersion is the version of every JSON record's form; fields are only ever added within one.
const jsonVersion = 1

// print writes one line of JSON to stdout.
func (s *session) print(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode output: %w", err)
	}
	_, err = s.Out.Write(append(b, '\n'))
	return err
}

// header is the first record of a stream; for a person there is none.
func (s *session) header(kind string) error {
	if !s.json {
		return nil
	}
	return s.print(map[string]any{"type": "header", "stream": kind, "version": jsonVersion})
}

// stream is a result that is a list: for programs it is one record a line, behind a header.
type stream interface {
	Records() (name string, records []any)
}

// result shows one result: as JSON, or as a person reads it.
func (s *session) result(v any) error {
	if list, is := v.(stream); is && s.json {
		name, records := list.Records()
		if err := s.header(name); err != nil {
			return err
		}
		for _, r := range records {
			if err := s.print(r); err != nil {
				return err
			}
		}
		return nil
	}
	if s.json {
		return s.print(v)
	}
	return renderValue(s.Out, v)
}

// text prints a document as it is; with --json it is one record's text.
func (s *session) text(kind, text string) error {
	if s.json {
		return s.print(map[string]string{"type": kind, "text": text})
	}
	_, err := io.WriteString(s.Out, text)
	return err
}

// say prints a line for a person; with --json it is silent.
func (s *session) say(format string, args ...any) {
	if !s.json {
		fmt.Fprintf(s.Out, format+"\n", args...)
	}
}

// table prints rows in columns.
func (s *session) table(head []string, rows [][]string) error {
	w := tabwriter.NewWriter(s.Out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(head, "\t"))
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// renderValue prints any JSON-able value as indented "name: value" lines, in the order of its fields.
func renderValue(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode output: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var out strings.Builder
	if err := renderNext(dec, &out, 0); err != nil {
		return err
	}
	_, err = io.WriteString(w, strings.TrimLeft(out.String(), "\n"))
	return err
}

// renderNext prints the decoder's next value; streaming keeps the order in which fields were declared.
func renderNext(dec *json.Decoder, out *strings.Builder, depth int) error {
	t, err := dec.Token()
	if err != nil {
		return err
	}
	delim, nested := t.(json.Delim)
	if !nested {
		fmt.Fprintf(out, "%v\n", scalar(t))
		return nil
	}
	if depth > 0 {
		out.WriteString("\n")
	}
	for dec.More() {
		indent := strings.Repeat("  ", depth)
		if delim == '{' {
			key, err := dec.Token()
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "%s%s: ", indent, strings.ReplaceAll(fmt.Sprint(key), "_", " "))
		} else {
			fmt.Fprintf(out, "%s- ", indent)
		}
		if err := renderNext(dec, out, depth+1); err != nil {
			return err
		}
	}
	_, err = dec.Token()
	return err
}

func scalar(t json.Token) any {
	if t == nil || t == "" {
		return "—"
	}
	return t
}

// bytesText is a size for people: "1.5 GB".
func bytesText(n int64) string {
	f, unit := float64(n), "B"
	for _, next := range []string{"kB", "MB", "GB", "TB"} {
		if f < 1000 {
			break
		}
		f, unit = f/1000, next
	}
	if unit == "B" {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, unit)
}

// timeText is an instant in UTC, to the second; "—" for none.
func timeText(t time.Time) string {
	if t.IsZero() {
		return "—"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}
