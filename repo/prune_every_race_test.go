//go:build race

package repo

// The race detector makes every operation dear and needs a sample only: the exhaustive runs are those without it.
const (
	everyNth   = 67
	everyCase  = 61
	everyFault = 499
	everyPause = 131
)
