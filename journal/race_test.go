package journal_test

import (
	"path/filepath"
	"sync"
	"testing"

	"github.com/toolboxai/relight/journal"
)

// SQLite turns a new file to write-ahead logging without waiting for others who do the same, whatever its busy timeout says.
func TestManyMakeOneJournal(t *testing.T) {
	t.Parallel()
	for range 20 {
		path := filepath.Join(t.TempDir(), "journal.db")
		var makers sync.WaitGroup
		for range 8 {
			makers.Go(func() {
				j, err := journal.Open(t.Context(), path, options("maker"))
				if err != nil {
					t.Error(err)
					return
				}
				if err := j.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		makers.Wait()
	}
}
