//go:build !slow && !soak && !race

package repo

const (
	everyNth   = 17 // operation is where the parties of a race change; with the tag slow every one
	everyCase  = 4  // operation of a backup is where it fails, and kind of damage; with the tag slow every one
	everyFault = 17 // operation of retention and copies suffers all faults, one after the other; with the tag soak every one
	everyPause = 17 // operation of a copy is where the mirror's retention comes in, or the reverse; with the tag slow every third, with soak every one
)
