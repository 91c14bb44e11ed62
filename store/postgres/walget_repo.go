package postgres

import (
	"context"
	"io"

	"github.com/toolboxai/relight"
	"github.com/toolboxai/relight/repo"
)

// RepositoryWAL lets a WALServer read a repository.
func RepositoryWAL(r *repo.Reader) WALRepository { return readerWAL{r} }

type readerWAL struct{ r *repo.Reader }

func (w readerWAL) Segment(ctx context.Context, k repo.WALKey, name string, to io.Writer) error {
	return w.r.WALSegment(ctx, k, name, to)
}

func (w readerWAL) Sidecars(ctx context.Context, store string, fn func(repo.WALKey, repo.Sidecar, bool) error) error {
	return w.r.Meta().Sidecars(ctx, store, fn)
}

func (w readerWAL) Histories(ctx context.Context, store string, system relight.SystemID) (map[relight.TimelineID][]byte, error) {
	all, err := w.r.Meta().Histories(ctx, store)
	if err != nil {
		return nil, err
	}
	texts := map[relight.TimelineID][]byte{}
	for _, h := range all {
		if h.System == system {
			texts[h.Timeline] = h.Data
		}
	}
	return texts, nil
}

func (w readerWAL) Gaps(ctx context.Context, store string, system relight.SystemID) ([]relight.Gap, error) {
	return w.r.Meta().Gaps(ctx, store, system)
}
