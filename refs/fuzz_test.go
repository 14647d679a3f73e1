package refs_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/headgate/headgate/refs"
)

// forbidden are the rules of git-check-ref-format(1), one after another.
var forbidden = []*regexp.Regexp{
	regexp.MustCompile(`(?s)(^|/)\.`),             // 1: no part begins with a dot
	regexp.MustCompile(`(?s)\.lock(/|$)`),         // 1: nor ends with .lock
	regexp.MustCompile(`(?s)^[^/]*$`),             // 2: there is a slash
	regexp.MustCompile(`(?s)\.\.`),                // 3
	regexp.MustCompile("(?s)[\x00-\x1f\x7f ~^:]"), // 4
	regexp.MustCompile(`(?s)[?*\[]`),              // 5
	regexp.MustCompile(`(?s)^/|/$|//`),            // 6
	regexp.MustCompile(`(?s)\.$`),                 // 7
	regexp.MustCompile(`(?s)@\{`),                 // 8
	regexp.MustCompile(`(?s)^@$`),                 // 9
	regexp.MustCompile(`(?s)\\`),                  // 10
}

func slowRefName(s string) bool {
	if len(s) > 1024 || !strings.HasPrefix(s, "refs/") {
		return false
	}
	// The expressions read UTF-8; every byte beyond ASCII is as good as another.
	ascii := strings.Map(func(r rune) rune {
		if r > 0x7f {
			return 'u'
		}
		return r
	}, s)
	for _, rule := range forbidden {
		if rule.MatchString(ascii) {
			return false
		}
	}
	return true
}

func FuzzRefName(f *testing.F) {
	for _, name := range names {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, err := refs.Parse(s)
		if (err == nil) != slowRefName(s) || err == nil && string(name) != s {
			t.Errorf("%q: %q, %v; by the rules it is good: %v", s, name, err, slowRefName(s))
		}
	})
}
