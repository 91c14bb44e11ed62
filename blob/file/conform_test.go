package file_test

import (
	"path/filepath"
	"testing"

	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/blob/blobtest"
	"github.com/toolboxai/relight/blob/file"
)

func TestConformance(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) blob.Storage {
		s, err := file.Create(filepath.Join(t.TempDir(), "repo"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		return s
	})
}
