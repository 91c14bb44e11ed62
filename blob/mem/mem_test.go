package mem_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/blob/blobtest"
	"github.com/toolboxai/relight/blob/mem"
)

func TestConformance(t *testing.T) {
	blobtest.Run(t, func(*testing.T) blob.Storage { return mem.New() })
}

func put(t *testing.T, s blob.Storage, name, body string) {
	t.Helper()
	if err := s.Put(t.Context(), name, strings.NewReader(body), blob.PutOptions{Replace: true}); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, s blob.Storage, name string) string {
	t.Helper()
	rc, err := s.Get(t.Context(), name, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(rc)
	if err := errors.Join(err, rc.Close()); err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestCloneIsIndependent(t *testing.T) {
	t.Parallel()
	s := mem.New()
	put(t, s, "a/b", "before")
	crashed := s.Clone()
	put(t, s, "a/b", "after")
	put(t, s, "a/c", "new")
	if got := get(t, crashed, "a/b"); got != "before" {
		t.Errorf("the clone holds %q", got)
	}
	if _, err := crashed.Stat(t.Context(), "a/c"); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("the clone sees a later object: %v", err)
	}
	put(t, crashed, "a/b", "elsewhere")
	if got := get(t, s, "a/b"); got != "after" {
		t.Errorf("the original holds %q", got)
	}
}

func TestRefusesObjectsWithinObjects(t *testing.T) {
	t.Parallel()
	s := mem.New()
	put(t, s, "a/b", "x")
	for _, name := range []string{"a", "a/b/c", "a/b/c/d"} {
		err := s.Put(t.Context(), name, strings.NewReader(""), blob.PutOptions{})
		if !errors.Is(err, blob.ErrName) {
			t.Errorf("put %s beside a/b: %v", name, err)
		}
	}
	if err := s.Delete(t.Context(), "a/b"); err != nil {
		t.Fatal(err)
	}
	put(t, s, "a", "free again")
}

func TestCorrupt(t *testing.T) {
	t.Parallel()
	s := mem.New()
	put(t, s, "a", "good")
	clone := s.Clone()
	if err := s.Corrupt("a", func(b []byte) []byte { return bytes.ToUpper(b) }); err != nil {
		t.Fatal(err)
	}
	if got := get(t, s, "a"); got != "GOOD" {
		t.Errorf("holds %q", got)
	}
	if got := get(t, clone, "a"); got != "good" {
		t.Errorf("the clone holds %q", got)
	}
	if err := s.Corrupt("none", bytes.Clone); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("corrupt an absent object: %v", err)
	}
}
