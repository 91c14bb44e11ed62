//go:build soak && !race

package repo

const (
	everyNth   = 1
	everyCase  = 1
	everyFault = 1
	everyPause = 1

	tibOwnerToo = true
)
