package repo

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/toolboxai/relight/blob"
)

// hooked calls what a test has set, once, after a body of live WAL was stored or before live WAL was listed.
type hooked struct {
	blob.Storage
	stored, listing func()
}

func once(f *func()) {
	if g := *f; g != nil {
		*f = nil
		g()
	}
}

func (h *hooked) Put(ctx context.Context, name string, body io.ReadSeeker, o blob.PutOptions) error {
	err := h.Storage.Put(ctx, name, body, o)
	if strings.Contains(name, "/live/") && !strings.HasSuffix(name, metaSuffix) {
		once(&h.stored)
	}
	return err
}

func (h *hooked) List(ctx context.Context, prefix string, fn func(blob.Info) error) error {
	if strings.HasSuffix(prefix, "/live/") {
		once(&h.listing)
	}
	return h.Storage.List(ctx, prefix, fn)
}

// The shipper puts live ranges and sweeps them at the same time: no sidecar may be left without its body.
func TestSweepSparesPutsUnderWay(t *testing.T) {
	t.Parallel()
	for name, interleave := range map[string]func(t *testing.T, h *hooked, s Sink){
		"between body and sidecar": func(t *testing.T, h *hooked, s Sink) {
			h.stored = func() { ok(t, s.SweepLive(t.Context(), testKey)) }
			ok(t, putLive(t.Context(), s, testKey, 4, 1000, 5000))
		},
		"begun and ended while sweeping": func(t *testing.T, h *hooked, s Sink) {
			h.listing = func() { ok(t, putLive(t.Context(), s, testKey, 4, 1000, 5000)) }
			ok(t, s.SweepLive(t.Context(), testKey))
		},
		"of the same range again": func(t *testing.T, h *hooked, s Sink) {
			h.stored = func() { ok(t, s.SweepLive(t.Context(), testKey)) }
			ok(t, putLive(t.Context(), s, testKey, 4, 0, 1000))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st := newStand(t)
			h := &hooked{Storage: st.s}
			m := st.writer(h)
			s := m.Sink("main")
			ok(t, putLive(t.Context(), s, testKey, 4, 0, 1000))
			ok(t, putSegment(t.Context(), s, testKey, 4))
			interleave(t, h, s)
			l := must(m.listWAL(t.Context(), testKey.prefix()+"live/"))(t)
			for _, w := range l.sidecars {
				sc := must(m.sidecar(t.Context(), w))(t)
				ok(t, m.statBody(t.Context(), sc))
			}
			if len(l.sidecars) == 0 {
				t.Error("the range that was under way is gone")
			}
			ok(t, s.SweepLive(t.Context(), testKey)) // it is over: nothing is spared, nothing left
			if n := objectNames(t, st.s, testKey.prefix()+"live/"); len(n) != 0 {
				t.Errorf("not swept: %v", n)
			}
		})
	}
}
