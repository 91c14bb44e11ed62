//go:build !slow && !race

package repo

// With the tag slow every one is tried.
const (
	everyNth   = 17 // operation is where the parties of a race change
	everyCase  = 4  // operation of a backup is where it fails, and kind of damage
	everyFault = 17 // operation of retention and copies suffers all faults, one after the other
	everyPause = 17 // operation of a copy is where the mirror's retention comes in, or the reverse
)
