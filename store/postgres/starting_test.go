package postgres

import (
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/toolboxai/relight/store/postgres/replication"
)

// A server that is not there is asked again every second, for it may just be back after a recovery; one that refuses is left in peace.
func TestLongestPause(t *testing.T) {
	t.Parallel()
	_, nobody := replication.Connect(t.Context(), "host="+t.TempDir()+" user=u dbname=d", "test", time.Now)
	said := func(code string) error { return fmt.Errorf("connect: %w", &pgconn.PgError{Code: code}) }
	for name, c := range map[string]struct {
		err  error
		want time.Duration
	}{
		"nobody listens":   {nobody, longestAway},
		"it starts":        {said(cannotConnectNow), longestAway},
		"it crashed":       {fmt.Errorf("receive WAL: %w", io.ErrUnexpectedEOF), longestAway},
		"it ended orderly": {nil, longestPause},
		"wrong password":   {said("28P01"), longestPause},
		"something else":   {errors.New("the spool is full"), longestPause},
	} {
		if got := longest(c.err); got != c.want {
			t.Errorf("%s (%v): %s, expected %s", name, c.err, got, c.want)
		}
	}
}
