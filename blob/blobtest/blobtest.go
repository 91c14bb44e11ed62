// Package blobtest holds a storage driver to the promises of the port, in tests. It promises to put exactly the questions
// that package conform puts for operators, each answer as a subtest, and to see that
// neither objects nor goroutines are left behind.
package blobtest

import (
	"bytes"
	"testing"

	"go.uber.org/goleak"

	"github.com/toolboxai/relight/blob"
	"github.com/toolboxai/relight/blob/conform"
)

// smallLarge is the size of the large object in bytes where its size is not what is asked about.
const smallLarge = 1 << 20

// Run puts every question of package conform to a storage that fresh makes.
func Run(t *testing.T, fresh func(t *testing.T) blob.Storage) {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	s := fresh(t)
	asked := 0
	o := conform.Options{Rand: bytes.NewReader([]byte(t.Name() + "........"))}
	if testing.Short() { // the race detector makes bytes dear
		o.Large = smallLarge
	}
	err := conform.Check(t.Context(), s, o, func(name string, err error) {
		asked++
		t.Run(name, func(t *testing.T) {
			if err != nil {
				t.Error(err)
			}
		})
	})
	if err != nil {
		t.Error(err)
	}
	if want := len(conform.Names()); asked != want {
		t.Errorf("%d of %d checks were run", asked, want)
	}
	left(t, s)
	goleak.VerifyNone(t, leaks)
}

// left sees that the checks removed everything that they wrote.
func left(t *testing.T, s blob.Storage) {
	t.Helper()
	err := s.List(t.Context(), "", func(i blob.Info) error {
		t.Errorf("the checks left %s", i.Name)
		return nil
	})
	if err != nil {
		t.Errorf("list what is left: %v", err)
	}
}

// Failures are the checks that s does not pass: for tests that the suite can fail.
func Failures(t *testing.T, s blob.Storage) []string {
	t.Helper()
	var failed []string
	o := conform.Options{Rand: bytes.NewReader(make([]byte, 8)), Large: smallLarge}
	err := conform.Check(t.Context(), s, o, func(name string, err error) {
		if err != nil {
			failed = append(failed, name)
		}
	})
	if (err != nil) != (len(failed) > 0) {
		t.Errorf("%d failed checks, but the verdict is %v", len(failed), err)
	}
	return failed
}
