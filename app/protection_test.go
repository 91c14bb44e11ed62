package app

import (
	"context"
	"testing"
	"time"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/coordinator"
)

// What a former process published must not pass for the protection that begins: until the new one has looked, nothing is known.
func TestTheFormerStatusIsForgotten(t *testing.T) {
	t.Parallel()
	st := kept(t)
	a := st.app(func(o *Options) { o.Executable = "/bin/true" }) // it begins, and publishes nothing
	e, err := a.Estate()
	ok(t, err)
	former := coordinator.Status{At: time.Now(), Stores: map[string]*coordinator.StoreStatus{"main": {Timeline: 1}}}
	ok(t, publish(e, former))
	p, err := a.Protection()
	ok(t, err)
	_, err = p.Start(t.Context(), func(_ context.Context, _ relight.Handle) error { return nil })
	ok(t, err)
	if now, err := p.Status(); err != nil || len(now.Stores) > 0 {
		t.Errorf("the status is %+v, %v", now, err)
	}
	ok(t, publish(e, former))
	ok(t, a.announce(e))
	if now, err := p.Status(); err != nil || len(now.Stores) > 0 {
		t.Errorf("announced, the status is %+v, %v", now, err)
	}
}
