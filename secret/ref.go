package secret

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/toolboxai/relight"
)

// Ref says where a secret lies. It is no secret itself.
type Ref struct {
	scheme string
	rest   string
	argv   []string // exec
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

const refHint = "write env:NAME, file:PATH, exec:COMMAND or age:PATH"

// ParseRef reads a reference. What is none is not repeated in the error, because it may be the secret.
func ParseRef(s string) (Ref, error) {
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok || !known(scheme) {
		return Ref{}, bad("", errors.New("a secret is given by reference, not by value (the text is not shown here)"), refHint)
	}
	r := Ref{scheme: scheme, rest: rest}
	if strings.TrimSpace(rest) != rest || rest == "" {
		return Ref{}, bad(scheme+":", errors.New("nothing, or a space, follows the colon"), refHint)
	}
	switch scheme {
	case "env":
		if !envName.MatchString(rest) {
			return Ref{}, bad("env:", errors.New("what follows is no name of an environment variable"), "write env:NAME; to use a value, put it into a file and write file:PATH")
		}
	case "file", "age":
		if strings.ContainsAny(rest, "\x00\n") {
			return Ref{}, bad(scheme+":", errors.New("what follows is no path"), "")
		}
	case "exec":
		argv, err := split(rest)
		if err != nil {
			return Ref{}, bad("exec:", err, "quote with '…' or \"…\"; pipes and variables need a script of their own")
		}
		r.argv = argv
	}
	return r, nil
}

func known(scheme string) bool {
	return scheme == "env" || scheme == "file" || scheme == "exec" || scheme == "age"
}

func bad(subject string, err error, hint string) error {
	return &relight.Error{Op: "read secret reference", Subject: subject, Code: relight.CodeUsage, Err: err, Hint: hint}
}

// String is the reference as it was written.
func (r Ref) String() string {
	if r.scheme == "" {
		return ""
	}
	return r.scheme + ":" + r.rest
}

// IsZero says that no reference was given.
func (r Ref) IsZero() bool { return r.scheme == "" }

// MarshalText writes the reference.
func (r Ref) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads a reference.
func (r *Ref) UnmarshalText(b []byte) error {
	got, err := ParseRef(string(b))
	*r = got
	return err
}

// split cuts a command into words: quotes group, a backslash outside single quotes takes the next character as it is. What
// only a shell would understand is refused rather than passed on.
func split(s string) ([]string, error) {
	var words []string
	var word strings.Builder
	var quote rune
	inWord, escaped := false, false
	for _, c := range s {
		switch {
		case escaped:
			word.WriteRune(c)
			escaped = false
		case c == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(c)
		case c == '\'' || c == '"':
			quote, inWord = c, true
		case c == ' ' || c == '\t':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		case strings.ContainsRune("|&;<>()$`\n\x00*?[#~", c):
			return nil, fmt.Errorf("%q needs a shell, and none runs", c)
		default:
			word.WriteRune(c)
			inWord = true
		}
	}
	if quote != 0 || escaped {
		return nil, errors.New("a quote is not closed")
	}
	if inWord {
		words = append(words, word.String())
	}
	if len(words) == 0 || words[0] == "" {
		return nil, errors.New("no program is named")
	}
	return words, nil
}
