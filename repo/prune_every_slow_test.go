//go:build slow && !soak && !race

package repo

const (
	everyNth   = 1
	everyCase  = 1
	everyFault = 7
	everyPause = 3

	tibOwnerToo = false // a check and retention, which mark by the same code: half the time of the whole test
)
