package uploadarchive

import (
	"errors"
	"regexp"
	"strings"
)

// glob is one of git's wildmatch patterns. It is turned into a regular
// expression, which matches in linear time whoever wrote the pattern.
type glob struct{ re *regexp.Regexp }

// newGlob compiles a pattern. With across, wildcards match slashes too, as in
// pathspecs; else only "**" between slashes does, as in .gitattributes.
func newGlob(pattern string, across bool) (*glob, error) {
	var b strings.Builder
	b.WriteString(`^`)
	one, many := `[^/]`, `[^/]*`
	if across {
		one, many = `(?s:.)`, `(?s:.*)`
	}
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; c {
		case '?':
			b.WriteString(one)
		case '*':
			j := i
			for j < len(pattern) && pattern[j] == '*' {
				j++
			}
			// Two or more, alone between slashes, are any number of directories.
			whole := j-i >= 2 && (i == 0 || pattern[i-1] == '/') && (j == len(pattern) || pattern[j] == '/')
			switch {
			case across || !whole:
				b.WriteString(many)
			case j == len(pattern):
				b.WriteString(`(?s:.*)`)
			default:
				b.WriteString(`(?s:.*/)?`)
				j++ // the slash is part of it
			}
			i = j - 1
		case '[':
			class, n, err := bracket(pattern[i:], across)
			if err != nil {
				return nil, err
			}
			b.WriteString(class)
			i += n - 1
		case '\\':
			if i++; i == len(pattern) {
				return nil, errors.New("a backslash at the end")
			}
			b.WriteString(literal(pattern[i]))
		default:
			b.WriteString(literal(c))
		}
	}
	b.WriteString(`$`)
	re, err := regexp.Compile(b.String())
	if err != nil {
		return nil, errors.New("too long or malformed")
	}
	return &glob{re}, nil
}

// match works on bytes, as git does: a byte becomes the code point of its value.
func (g *glob) match(s string) bool { return g.re.MatchString(latin1(s)) }

func latin1(s string) string {
	for i := range len(s) {
		if s[i] >= 0x80 {
			runes := make([]rune, len(s))
			for i := range len(s) {
				runes[i] = rune(s[i])
			}
			return string(runes)
		}
	}
	return s
}

func literal(c byte) string { return regexp.QuoteMeta(latin1(string([]byte{c}))) }

// bracket reads "[...]" and returns it as a regular expression, and its length.
func bracket(p string, across bool) (string, int, error) {
	var set [256]bool
	i := 1
	negated := i < len(p) && (p[i] == '!' || p[i] == '^')
	if negated {
		i++
	}
	for first := true; ; first = false {
		if i >= len(p) {
			return "", 0, errOpen
		}
		if p[i] == ']' && !first {
			i++
			break
		}
		if rest, ok := strings.CutPrefix(p[i:], "[:"); ok {
			name, _, closed := strings.Cut(rest, ":]")
			in := classes[name]
			if !closed || in == nil {
				return "", 0, errors.New("an unknown class in brackets")
			}
			for c := range 128 {
				set[c] = set[c] || in(byte(c))
			}
			i += len(name) + 4
			continue
		}
		lo, n := member(p[i:])
		if i += n; n == 0 {
			return "", 0, errOpen
		}
		hi := lo
		if i+1 < len(p) && p[i] == '-' && p[i+1] != ']' {
			if hi, n = member(p[i+1:]); n == 0 {
				return "", 0, errOpen
			}
			i += 1 + n
		}
		for c := int(lo); c <= int(hi); c++ {
			set[c] = true
		}
	}
	const hex = "0123456789abcdef"
	var b strings.Builder
	for c, in := range set {
		if in != negated && (across || c != '/') {
			b.WriteString(`\x`)
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	if b.Len() == 0 {
		return nothing, i, nil
	}
	return "[" + b.String() + "]", i, nil
}

// nothing is an expression that matches no text.
const nothing = `[^\x00-\x{10FFFF}]`

var errOpen = errors.New("a bracket that is not closed")

// member reads one byte of a bracket, which a backslash may quote. n is 0 at the end.
func member(p string) (c byte, n int) {
	switch {
	case p == "" || p == `\`:
		return 0, 0
	case p[0] == '\\':
		return p[1], 2
	}
	return p[0], 1
}

// classes are those of POSIX, in the C locale.
var classes = map[string]func(byte) bool{
	"alnum":  func(c byte) bool { return alpha(c) || digit(c) },
	"alpha":  alpha,
	"blank":  func(c byte) bool { return c == ' ' || c == '\t' },
	"cntrl":  func(c byte) bool { return c < ' ' || c == 0x7f },
	"digit":  digit,
	"graph":  func(c byte) bool { return c > ' ' && c < 0x7f },
	"lower":  func(c byte) bool { return c >= 'a' && c <= 'z' },
	"print":  func(c byte) bool { return c >= ' ' && c < 0x7f },
	"punct":  func(c byte) bool { return c > ' ' && c < 0x7f && !alpha(c) && !digit(c) },
	"space":  func(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' },
	"upper":  func(c byte) bool { return c >= 'A' && c <= 'Z' },
	"xdigit": func(c byte) bool { return digit(c) || c|0x20 >= 'a' && c|0x20 <= 'f' },
}

func alpha(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

func digit(c byte) bool { return c >= '0' && c <= '9' }
