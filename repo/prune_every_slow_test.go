//go:build slow && !soak && !race

package repo

const (
	everyNth   = 1
	everyCase  = 1
	everyFault = 7
	everyPause = 3

	tibCheckToo = false // retention marks what a check looks at, by the same code
)
