//go:build pg

package postgres

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/store"
)

func TestMarkIsARecoveryTarget(t *testing.T) {
	t.Parallel()
	st := newPGStand(t)
	st.follow()
	st.srv.Exec(`create table t as select 1 i`)
	st.backup()
	mark, err := st.store.Mark(t.Context(), st.meta, "before migration")
	check(t, err)
	if mark.Point.LSN == 0 || mark.Point.Timeline != 1 || time.Since(mark.Point.Time) > time.Minute {
		t.Errorf("mark %+v", mark)
	}
	held, ok, err := st.store.FindMark(t.Context(), st.meta, "before migration")
	if err != nil || !ok || aligned(held.Point.LSN) != mark.Point.LSN { // the server counts the padding
		t.Errorf("in the repository: %+v, %v, %v", held, ok, err)
	}
	for _, name := range []string{"before migration", "", "two\nlines", strings.Repeat("x", 64)} {
		if _, err := st.store.Mark(t.Context(), st.meta, name); relight.CodeOf(err) != relight.CodeUsage || relight.HintOf(err) == "" {
			t.Errorf("name %q: %v", name, err)
		}
	}
	st.srv.Exec(`insert into t values (2)`)
	st.durable()
	_, srv := st.mustRestore(filepath.Join(st.srv.Root, "restored"), relight.RecoveryTarget{Kind: relight.TargetName, Name: "before migration"}, store.RestoreOptions{})
	if got := srv.Query(`select count(*) from t`); got != "1" {
		t.Errorf("%s rows", got)
	}
}

func TestMarkThatIsNotDurableIsNotPromised(t *testing.T) {
	t.Parallel()
	st := newPGStand(t) // nobody streams
	c := st.config
	c.DurableWait = 300 * time.Millisecond
	if _, err := New(c, st.deps).Mark(t.Context(), st.meta, "x"); err == nil || !strings.Contains(relight.HintOf(err), "relight serve") {
		t.Errorf("mark without a receiver: %v", err)
	}
}
