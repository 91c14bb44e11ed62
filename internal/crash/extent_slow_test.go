//go:build slow && !soak

package crash_test

// What a CI run covers: every boundary once, a random moment a place, one seed.
const (
	rounds  = 1
	moments = 2
	stalls  = false // only at the steps whose effect must not be had twice
)
