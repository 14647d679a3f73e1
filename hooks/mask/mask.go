// Package mask hides secrets in what functions say: the values themselves, and
// the forms in which they usually end up in a text. It does not know who said it.
//
// It keeps secrets from being printed by mistake. A function that means to give
// one away can always do so, in a form that nobody expects or in its table.
package mask

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Mark is what stands in the place of a secret.
const Mark = "***"

// minPart is the shortest part of a secret that is hidden on its own: a line of
// several, or a piece that was left where a text was cut.
const minPart = 8

// Mask hides a set of secrets. A nil Mask hides nothing. It is safe for
// concurrent use.
type Mask struct {
	patterns [][]byte // longest first
	longest  int
}

// New returns a mask of the secrets. Besides each value it hides its lines, its
// base64 (both alphabets, at any offset), its hexadecimal digits, and its form in
// JSON, in URLs and in Python's repr.
func New(values []string) *Mask {
	set := make(map[string]bool)
	for _, v := range values {
		for _, form := range forms(v) {
			if len(form) >= minPart {
				set[form] = true
			}
		}
	}
	m := &Mask{}
	for p := range set {
		m.patterns = append(m.patterns, []byte(p))
		m.longest = max(m.longest, len(p))
	}
	slices.SortFunc(m.patterns, func(a, b []byte) int {
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return bytes.Compare(a, b)
	})
	return m
}

func forms(v string) []string {
	out := []string{v}
	if lines := strings.FieldsFunc(v, func(r rune) bool { return r == '\n' || r == '\r' }); len(lines) > 1 {
		out = append(out, lines...)
	}
	for _, text := range slices.Clone(out) {
		if len(text) < minPart {
			continue
		}
		digits := hex.EncodeToString([]byte(text))
		out = append(out, digits, strings.ToUpper(digits), url.QueryEscape(text), url.PathEscape(text), inJSON(text), inRepr(text), inRecord(text))
		for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			for offset := range 3 {
				out = append(out, inBase64(enc, text, offset))
			}
		}
	}
	return out
}

// inBase64 returns the characters of text's base64 that do not depend on what
// stands around it, where it starts offset bytes after a multiple of three.
func inBase64(enc *base64.Encoding, text string, offset int) string {
	digits := enc.EncodeToString(append(make([]byte, offset), text...))
	from := (offset*8 + 5) / 6
	to := (offset + len(text)) * 8 / 6
	return digits[from:to]
}

func inJSON(text string) string {
	doc, err := json.Marshal(text)
	if err != nil {
		return ""
	}
	return string(doc[1 : len(doc)-1])
}

// inRepr is text between the single quotes of a Python literal, as a traceback or
// a container shows it.
func inRepr(text string) string {
	return strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\r", `\r`, "\t", `\t`).Replace(text)
}

// inRecord is text as the record of violations shows it.
func inRecord(text string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}

// Empty reports whether there is nothing to hide.
func (m *Mask) Empty() bool { return m == nil || len(m.patterns) == 0 }

// Longest returns the length of the longest form, in bytes.
func (m *Mask) Longest() int {
	if m == nil {
		return 0
	}
	return m.longest
}

// Text returns a whole text without its secrets. Texts are shortened by those who
// make them, so a piece of a secret at the beginning or the end of a line is
// hidden too if it has at least 8 bytes.
func (m *Mask) Text(s string) string {
	if m.Empty() || s == "" {
		return s
	}
	text := []byte(s)
	covered := make([]bool, len(text))
	m.cover(text, covered)
	at := 0
	for line := range bytes.Lines(text) {
		body := bytes.TrimRight(line, "\r\n")
		for _, part := range [][]byte{body, bytes.TrimRight(body, ".…")} {
			m.coverEnds(part, covered[at:at+len(part)])
		}
		at += len(line)
	}
	var b strings.Builder
	for i := range text {
		switch {
		case !covered[i]:
			b.WriteByte(text[i])
		case i == 0 || !covered[i-1]:
			b.WriteString(Mark)
		}
	}
	return b.String()
}

// cover marks every byte of text that is part of a secret.
func (m *Mask) cover(text []byte, covered []bool) {
	for _, p := range m.patterns {
		done := 0 // bytes before it are marked by this pattern already
		for from := 0; ; {
			i := bytes.Index(text[from:], p)
			if i < 0 {
				break
			}
			at := from + i
			for j := max(at, done); j < at+len(p); j++ {
				covered[j] = true
			}
			done, from = at+len(p), at+1
		}
	}
}

// coverEnds marks what a line begins or ends with of a secret that was cut.
func (m *Mask) coverEnds(line []byte, covered []bool) {
	for _, p := range m.patterns {
		if n := overlap(line, p); n >= minPart {
			for i := len(line) - n; i < len(line); i++ {
				covered[i] = true
			}
		}
		if n := overlap(p, line); n >= minPart {
			for i := range n {
				covered[i] = true
			}
		}
	}
}

// overlap returns the length of the longest end of a that b begins with, shorter
// than both.
func overlap(a, b []byte) int {
	if len(a) == 0 || len(b) == 0 {
		return 0
	}
	for at := max(0, len(a)-len(b)+1); at < len(a); at++ {
		i := bytes.IndexByte(a[at:], b[0])
		if i < 0 {
			return 0
		}
		at += i
		if bytes.HasPrefix(b, a[at:]) && len(a)-at < len(b) {
			return len(a) - at
		}
	}
	return 0
}
