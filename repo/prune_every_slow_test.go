//go:build slow && !race

package repo

const (
	everyNth  = 1
	everyCase = 1
)
