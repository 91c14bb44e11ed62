package cli

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/coordinator"
)

func (s *session) serveCommand() *cobra.Command {
	return &cobra.Command{Use: "serve", Short: "protect the estate until stopped", Args: cobra.NoArgs,
		Long: "Follow every store's changes into its repositories, take base backups when they are due, keep the estate's configuration and the journal\n" +
			"in the repositories. SIGTERM or SIGINT stops it cleanly; killed at any moment, it resumes where it was.",
		Example: "  relight serve --verbose", RunE: func(c *cobra.Command, _ []string) error { return s.a.Serve(c.Context()) }}
}

func (s *session) statusCommand() *cobra.Command {
	return &cobra.Command{Use: "status", Short: "show what is protected now, and up to when", Args: cobra.NoArgs,
		Long: "Show what is protected now. Exit code 0 says that every store is, by this host or, where this one stands by, by another that is at work;\n" +
			"6 that one is not.",
		Example: "  relight status\n  relight status --json", RunE: func(c *cobra.Command, _ []string) error { return s.status() }}
}

func (s *session) status() error {
	p, err := s.a.Protection()
	if err != nil {
		return err
	}
	_, running, err := p.Running()
	if err != nil {
		return err
	}
	st, err := p.Status()
	if err != nil {
		return err
	}
	names, err := p.Stores()
	if err != nil {
		return err
	}
	unprotected := s.unprotected(st, names, running)
	if s.json {
		if err := s.print(map[string]any{"type": "status", "running": running, "status": st, "unprotected": unprotected}); err != nil {
			return err
		}
	} else if err := s.statusTable(st, names, unprotected); err != nil {
		return err
	}
	if len(unprotected) == 0 {
		return nil
	}
	return &relight.Error{Op: "status", Code: relight.CodeVerification, Err: fmt.Errorf("%d of %d stores are not protected", len(unprotected), len(names)),
		Hint: "`relight protect start`, or run `relight serve` under your init system; `relight postgres doctor` finds what stands in the way"}
}

// unprotected gives each store that is not protected, and why.
func (s *session) unprotected(st coordinator.Status, names []string, running bool) map[string]string {
	out := map[string]string{}
	for _, name := range names {
		switch store, ok := st.Stores[name]; {
		case !running:
			out[name] = "no `relight serve` runs" + s.waiting(name)
		case !ok:
			out[name] = "protection has not reported yet"
		case s.a.Now().Sub(st.At) > 10*time.Second:
			out[name] = "protection has not reported since " + timeText(st.At)
		case store.StandsBy != "" && store.Alarm == "": // the other host's heartbeat is there, and the repositories hear from it
		default:
			if ok, why := store.Protected(); !ok {
				out[name] = why
			}
		}
	}
	return out
}

// waiting says what the commits of a store do while nothing protects it.
func (s *session) waiting(name string) string {
	e, err := s.a.Estate()
	if err != nil || e.Stores[name].Synchronous == nil {
		return ""
	}
	if e.Stores[name].Synchronous.Degrade {
		return "; its guard releases commits that waited for it, and they do not wait any more"
	}
	return "; commits wait until one runs again, or `relight postgres release` lets them go"
}

func (s *session) statusTable(st coordinator.Status, names []string, unprotected map[string]string) error {
	var rows [][]string
	for _, name := range names {
		state := "protected"
		if why := unprotected[name]; why != "" {
			state = "NOT PROTECTED: " + why
		}
		store := st.Stores[name]
		switch {
		case store == nil || unprotected[name] != "":
		case store.StandsBy != "":
			state = "stands by: host " + store.StandsBy + " protects it"
		case store.Synchronous.State != "":
			state += ", commits wait for it"
		}
		if store == nil {
			rows = append(rows, []string{name, "—", "—", "—", "—", "—", "—", state})
			continue
		}
		for _, repository := range slices.Sorted(maps.Keys(store.Repositories)) {
			r := store.Repositories[repository]
			rows = append(rows, []string{name, repository, r.Durable.String(), timeText(r.CoveredAt), timeText(r.Finished), timeText(r.Next), timeText(store.Point), state})
		}
	}
	if len(rows) == 0 {
		return errors.New("the estate has no stores")
	}
	if err := s.table([]string{"STORE", "REPOSITORY", "DURABLE", "COVERED UP TO", "BASE BACKUP", "NEXT", "RESTORE POINT", "STATE"}, rows); err != nil {
		return err
	}
	s.statusNotes(st)
	for _, task := range slices.Sorted(maps.Keys(st.Tasks)) {
		if st.Tasks[task] != "" {
			s.say("task failed: %s: %s", task, st.Tasks[task])
		}
	}
	return nil
}

// statusNotes says what a policy cannot have at the moment, and why.
func (s *session) statusNotes(st coordinator.Status) {
	for _, name := range slices.Sorted(maps.Keys(st.Stores)) {
		store := st.Stores[name]
		if store.PointError != "" {
			s.say("%s: no restore point could be set: %s", name, store.PointError)
		}
		for _, repository := range slices.Sorted(maps.Keys(store.Repositories)) {
			r := store.Repositories[repository]
			if r.Held != "" {
				s.say("%s in %s: no base backup is taken yet: %s", name, repository, r.Held)
			}
			if r.Error != "" {
				s.say("%s in %s: the last base backup failed: %s", name, repository, r.Error)
			}
			if r.Replay >= 1 {
				s.say("%s in %s: recovery to the present would replay for about %s", name, repository, time.Duration(r.Replay*float64(time.Second)).Round(time.Second))
			}
		}
	}
}
