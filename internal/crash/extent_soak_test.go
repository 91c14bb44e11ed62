//go:build slow && soak

package crash_test

// What `make soak` covers: every boundary and every event, many moments, several seeds.
const (
	usualRounds = 5
	moments     = 12
	kills       = 1
	prompt      = 1
)
