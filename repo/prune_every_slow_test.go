//go:build slow && !soak && !race

package repo

const (
	everyNth  = 3
	everyCase = 1
)
