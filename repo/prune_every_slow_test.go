//go:build slow && !race

package repo

const (
	everyNth   = 1
	everyCase  = 1
	everyFault = 1
	everyPause = 1
)
