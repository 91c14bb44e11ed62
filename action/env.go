package action

import (
	"context"
	"log/slog"
	"time"

	"github.com/toolboxai/relight"
)

// WithDefaults fills what the caller left nil with functions that do nothing, so that no action has to ask.
// Confirm stays nil: its absence means that nobody can be asked, and a destructive action is then refused.
func (e Env) WithDefaults() Env {
	if e.Started == nil {
		e.Started = func(context.Context, relight.Handle) error { return nil }
	}
	if e.Progress == nil {
		e.Progress = func(relight.Progress) {}
	}
	if e.Checkpoint == nil {
		e.Checkpoint = func(context.Context, string, any) error { return nil }
	}
	if e.Log == nil {
		e.Log = slog.New(slog.DiscardHandler)
	}
	if e.Now == nil {
		e.Now = time.Now
	}
	return e
}
