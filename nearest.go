package relight

import (
	"strconv"
	"strings"
)

// Nearest finds the candidate that word was most likely meant to be; "" when none is near.
func Nearest(word string, candidates []string) string {
	best, bestAt := "", 1+max(1, len(word)/3)
	for _, c := range candidates {
		d := distance(strings.ToLower(word), strings.ToLower(c))
		if d < bestAt {
			best, bestAt = c, d
		}
	}
	return best
}

// DidYouMean is the end of an error message about word: `; did you mean "store"?`, or nothing.
func DidYouMean(word string, candidates []string) string {
	n := Nearest(word, candidates)
	if n == "" {
		return ""
	}
	return "; did you mean " + strconv.Quote(n) + "?"
}

// distance counts insertions, deletions, substitutions and swaps of neighbours.
func distance(a, b string) int {
	ra, rb := []rune(a), []rune(b)
	before, above, row := make([]int, len(rb)+1), make([]int, len(rb)+1), make([]int, len(rb)+1)
	for j := range above {
		above[j] = j
	}
	for i := 1; i <= len(ra); i++ {
		row[0] = i
		for j := 1; j <= len(rb); j++ {
			cost := 1
			if ra[i-1] == rb[j-1] {
				cost = 0
			}
			row[j] = min(above[j]+1, row[j-1]+1, above[j-1]+cost)
			if i > 1 && j > 1 && ra[i-1] == rb[j-2] && ra[i-2] == rb[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, above, row = above, row, before
	}
	return above[len(rb)]
}
