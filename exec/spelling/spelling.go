// Package spelling finds what a misspelled name was probably meant to be. It does
// not know what is named.
package spelling

import (
	"fmt"
	"strings"
)

// Nearest returns the known name that name was probably meant to be, or "".
func Nearest(name string, known []string) string {
	name = strings.ToLower(name)
	best, bestAt := "", 1+max(1, len(name)/3)
	for _, k := range known {
		// Names of very different length are not worth the table.
		if d := len(k) - len(name); d >= bestAt || -d >= bestAt || len(k) > 200 {
			continue
		}
		if at := distance(name, strings.ToLower(k)); at < bestAt || (at == bestAt && best != "" && k < best) {
			best, bestAt = k, at
		}
	}
	return best
}

// DidYouMean returns ` (did you mean "x"?)`, or "" if no known name is near.
func DidYouMean(name string, known []string) string {
	if near := Nearest(name, known); near != "" {
		return fmt.Sprintf(" (did you mean %q?)", near)
	}
	return ""
}

// MeantOr returns DidYouMean's answer, or if there is none ` (there are a, b, c)`.
func MeantOr(name string, known []string) string {
	if near := DidYouMean(name, known); near != "" {
		return near
	}
	return fmt.Sprintf(" (there are %s)", strings.Join(known, ", "))
}

// distance is the Levenshtein distance where swapping two neighbours counts one.
func distance(a, b string) int {
	if len(a) > 200 {
		return len(a)
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
