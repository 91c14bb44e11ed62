package readonly_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/blob/fault"
	"github.com/toolboxai/relight/blob/mem"
	"github.com/toolboxai/relight/blob/readonly"
)

func TestReadsOnly(t *testing.T) {
	t.Parallel()
	inner := mem.New()
	if err := inner.Put(t.Context(), "dir/a", strings.NewReader("abc"), blob.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	seen := fault.New(inner, nil)
	s := readonly.New(seen)

	for _, o := range []blob.PutOptions{{}, {Replace: true}} {
		if err := s.Put(t.Context(), "dir/a", strings.NewReader("x"), o); !errors.Is(err, blob.ErrReadOnly) {
			t.Errorf("put %+v: %v", o, err)
		}
	}
	if err := s.Delete(t.Context(), "dir/a"); !errors.Is(err, blob.ErrReadOnly) {
		t.Errorf("delete: %v", err)
	}
	if n := len(seen.Ops()); n != 0 {
		t.Errorf("the wrapped storage saw %v", seen.Ops())
	}

	rc, err := s.Get(t.Context(), "dir/a", 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(rc)
	if err := errors.Join(err, rc.Close()); err != nil || string(got) != "bc" {
		t.Errorf("read %q, %v", got, err)
	}
	if info, err := s.Stat(t.Context(), "dir/a"); err != nil || info.Size != 3 {
		t.Errorf("stat: %+v, %v", info, err)
	}
	names := 0
	if err := s.List(t.Context(), "dir/", func(blob.Info) error { names++; return nil }); err != nil || names != 1 {
		t.Errorf("listed %d, %v", names, err)
	}
	if s.String() != inner.String() {
		t.Errorf("called %s", s)
	}
}
