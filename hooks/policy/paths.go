package policy

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// Fold returns what file systems that do not tell names apart make of one: without
// case, in one normal form (NFKC), and without the characters that HFS+ ignores. Two
// names of equal folds can be one file in somebody's checkout.
func Fold(name string) string {
	name = norm.NFKC.String(name)
	name = strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Cf, r) {
			return -1
		}
		// The least of the runes that differ in case only stands for all of them.
		least := r
		for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
			least = min(least, next)
		}
		return least
	}, name)
	return norm.NFKC.String(strings.TrimRight(name, " ."))
}
