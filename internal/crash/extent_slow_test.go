//go:build slow && !soak

package crash_test

// What a CI run covers: every boundary once, two random moments a place, one seed.
const (
	rounds  = 1
	moments = 2
	prompt  = 10 // every tenth event is also answered with a kill as soon as it is printed
)
