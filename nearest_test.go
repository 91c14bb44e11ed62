package relight_test

import (
	"testing"

	"github.com/toolboxai/relight"
)

func TestNearest(t *testing.T) {
	t.Parallel()
	words := []string{"store", "target", "verify_before", "repositories", "services"}
	for in, want := range map[string]string{"stroe": "store", "stores": "store", "Store": "store", "verifybefore": "verify_before", "repositorys": "repositories", "servces": "services", "zebra": "", "": ""} {
		if got := relight.Nearest(in, words); got != want {
			t.Errorf("nearest to %q: %q, want %q", in, got, want)
		}
	}
	if relight.Nearest("store", nil) != "" {
		t.Error("found among none")
	}
}

func TestDidYouMean(t *testing.T) {
	t.Parallel()
	if got := relight.DidYouMean("stroe", []string{"store"}); got != `; did you mean "store"?` {
		t.Error(got)
	}
	if got := relight.DidYouMean("zebra", []string{"store"}); got != "" {
		t.Error(got)
	}
}
