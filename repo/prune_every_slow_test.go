//go:build slow && !soak && !race

package repo

const (
	everyNth   = 1
	everyCase  = 1
	everyFault = 7
	everyPause = 3
)
