//go:build !slow && !soak && !race

package repo

const (
	everyNth  = 17 // operation is where the parties of a race change; with the tag slow every one
	everyCase = 1  // operation of a backup is where it fails
)
