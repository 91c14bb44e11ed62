package blob_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/toolboxai/relight/blob"
)

func TestCheckName(t *testing.T) {
	t.Parallel()
	good := []string{"a", "relight.json", "a/b", "...", "a/...", "-", "wal/main/7/00000001/live/000000010000000000000003/0-1.meta", strings.Repeat("x", blob.MaxElement)}
	for _, name := range good {
		if err := blob.CheckName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	bad := map[string]string{
		"": "0 bytes", "/a": "empty", "a//b": "empty", "a/": "empty", ".": `"."`, "a/../b": `".."`, "a b": "byte 1", "a/bä": "byte 1", "a\x00": "byte 1",
		strings.Repeat("x", blob.MaxElement+1): "256 bytes", strings.Repeat("x/", 500) + "x": "1001 bytes",
	}
	for name, why := range bad {
		err := blob.CheckName(name)
		if !errors.Is(err, blob.ErrName) || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %v, expected to hear of %s", name, err, why)
		}
	}
}

func TestCheckPrefix(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"", "a", "a/", "a/b", "a/.", "..", "a/b/"} {
		if err := blob.CheckPrefix(prefix); err != nil {
			t.Errorf("%q: %v", prefix, err)
		}
	}
	for _, prefix := range []string{"/", "a//", "../", "a/../b", "ä", "a b", strings.Repeat("x", blob.MaxName+1)} {
		if err := blob.CheckPrefix(prefix); !errors.Is(err, blob.ErrName) {
			t.Errorf("%q: %v", prefix, err)
		}
	}
}

func FuzzCheckName(f *testing.F) {
	f.Add("a/b")
	f.Add("../a")
	f.Fuzz(func(t *testing.T, name string) {
		if blob.CheckName(name) != nil {
			return
		}
		if strings.Contains("/"+name+"/", "/../") || strings.Contains(name, "//") || strings.HasPrefix(name, "/") {
			t.Errorf("%q leads outside", name)
		}
		for i := range name {
			if err := blob.CheckPrefix(name[:i]); err != nil {
				t.Errorf("%q is a name, but its beginning %q no prefix: %v", name, name[:i], err)
			}
		}
	})
}
