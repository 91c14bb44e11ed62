//go:build slow && !soak

package crash_test

// What a CI run covers: every boundary once, one random moment a place, one seed.
const (
	usualRounds = 1
	moments     = 1
	kills       = 3  // that one run suffers, one after the other
	prompt      = 20 // every twentieth event is also answered with a kill as soon as it is printed
)
