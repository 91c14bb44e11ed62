package file

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/toolboxai/relight"
)

// Path is the absolute path that a storage's URL names: "file:///path", or a path as it stands.
func Path(raw string) (string, error) {
	bad := func(err error, hint string) error {
		return &relight.Error{Op: "open storage", Subject: fmt.Sprintf("%q", raw), Code: relight.CodeUsage, Err: err, Hint: hint}
	}
	const hint = "write file:///absolute/path or a path"
	if raw == "" {
		return "", bad(fmt.Errorf("the URL is empty"), hint)
	}
	if !strings.Contains(raw, "://") {
		path, err := filepath.Abs(raw)
		if err != nil {
			return "", bad(err, hint)
		}
		return path, nil
	}
	u, err := url.Parse(raw)
	if err != nil {
		return "", bad(err, hint)
	}
	if u.Scheme != "file" {
		return "", bad(fmt.Errorf("%q is not a file URL", u.Scheme), hint)
	}
	if u.Host != "" && u.Host != "localhost" || !filepath.IsAbs(u.Path) {
		return "", bad(fmt.Errorf("the path is not absolute"), "write three slashes: file:///"+u.Host+u.Path)
	}
	if u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return "", bad(fmt.Errorf("a file URL has a path only"), hint)
	}
	return filepath.Clean(u.Path), nil
}

// address is the URL of a directory.
func address(path string) string { return (&url.URL{Scheme: "file", Path: path}).String() }
