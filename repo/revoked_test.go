package repo

import (
	"errors"
	"slices"
	"testing"
	"time"
)

// What a revoked host left behind stands in nobody's way, and a process of it that still runs stores and removes nothing more.
func TestRevokedHostIsInNobodysWay(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	running := st.writer(st.s)
	sink := running.Sink("main")
	ok(t, putSegment(t.Context(), sink, testKey, 3))
	lease := must(running.Acquire(t.Context(), "follow/main", ttl))(t)
	ok(t, lease.Renew(t.Context()))
	ok(t, running.MaySign(t.Context()))

	ok(t, RevokeHost(t.Context(), st.recovery(st.s), "db1", time.Time{}, "stolen"))
	st.clock.add(trustAge + time.Second)
	before := names(t, st.s, "")
	for what, err := range map[string]error{"write": putSegment(t.Context(), sink, testKey, 4), "sweep": sink.SweepLive(t.Context(), testKey), "may sign": running.MaySign(t.Context())} {
		if !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", what, err)
		}
		wantError(t, err, "host db1 is revoked (stolen)")
	}
	wantError(t, lease.Renew(t.Context()), "follow/main")
	if after := names(t, st.s, ""); !slices.Equal(after, before) {
		t.Errorf("the objects\n%q\nhave become\n%q", before, after)
	}

	// The same host, enrolled anew: it knows by its kernel lock that its former process is gone.
	again := must(EnrolHost(t.Context(), st.recovery(st.s), "db1", RoleWriter))(t)
	renewed := must(Open(t.Context(), st.s, must(again.Keyring())(t), st.options()))(t)
	began := st.clock.now()
	must(renewed.acquire(t.Context(), "follow/main", ttl, ForOtherHosts))(t)
	if waited := st.clock.now().Sub(began); waited > 0 {
		t.Errorf("its own former lease was waited for: %s", waited)
	}
	ok(t, putSegment(t.Context(), renewed.Sink("main"), testKey, 4))
}

// Another host waits for a revoked holder only until that one has noticed.
func TestLeaseOfARevokedHolder(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	must(st.writer(st.s).Acquire(t.Context(), "follow/main", ttl))(t)
	ok(t, RevokeHost(t.Context(), st.recovery(st.s), "db1", time.Time{}, "stolen"))
	c := must(EnrolHost(t.Context(), st.recovery(st.s), "db2", RoleWriter))(t)
	other := must(Open(t.Context(), st.s, must(c.Keyring())(t), st.options()))(t)
	began := st.clock.now()
	must(other.Acquire(t.Context(), "follow/main", ttl))(t)
	if waited := st.clock.now().Sub(began); waited < trustAge || waited > 2*trustAge {
		t.Errorf("it was waited for %s", waited)
	}
}
