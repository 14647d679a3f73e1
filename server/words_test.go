package server

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestSplitWords(t *testing.T) {
	tests := []struct {
		line string
		want []string
	}{
		{"", nil},
		{"  \t ", nil},
		{"git-upload-pack '/flights'", []string{"git-upload-pack", "/flights"}},
		{`git-upload-pack '/it'\''s'`, []string{"git-upload-pack", "/it's"}},
		{`git-upload-pack 'a'\!'b'`, []string{"git-upload-pack", "a!b"}},
		{`query l "SELECT 'a' \"b\" \$x \n"`, []string{"query", "l", `SELECT 'a' "b" $x \n`}},
		{`a '' "" b`, []string{"a", "", "", "b"}},
		{"a$HOME `b` *;|&", []string{"a$HOME", "`b`", "*;|&"}},
		{"a\\\nb \"c\\\nd\"", []string{"ab", "cd"}},
	}
	for _, tt := range tests {
		if got, ok := splitWords(tt.line); !ok || !slices.Equal(got, tt.want) {
			t.Errorf("%q: got %q %v, want %q", tt.line, got, ok, tt.want)
		}
	}
	for _, line := range []string{"'", `"`, `a "b`, `a 'b`, `a\`, `"a\`, `"\"`} {
		if got, ok := splitWords(line); ok {
			t.Errorf("%q: got %q, want a refusal", line, got)
		}
	}
}

// What git quotes, comes back as it was.
func TestQuotedWordsComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOf(rapid.String()).Draw(t, "words")
		var line []string
		for _, w := range words {
			line = append(line, "'"+strings.NewReplacer("'", `'\''`, "!", `'\!'`).Replace(w)+"'")
		}
		got, ok := splitWords(strings.Join(line, " "))
		if !ok || !slices.Equal(got, words) {
			t.Fatalf("got %q, want %q", got, words)
		}
	})
}

func TestProtocolVersion(t *testing.T) {
	for _, tt := range []struct {
		env  []string
		want int
	}{
		{nil, 0},
		{[]string{"GIT_PROTOCOL=version=2"}, 2},
		{[]string{"LANG=C", "GIT_PROTOCOL=version=1"}, 1},
		{[]string{"GIT_PROTOCOL=x:version=1:version=2:y=z"}, 2},
		{[]string{"GIT_PROTOCOL=version=9"}, 0},
		{[]string{"GIT_PROTOCOL=version=-1"}, 0},
	} {
		if got := protocolVersion(tt.env); got != tt.want {
			t.Errorf("%q: got %d, want %d", tt.env, got, tt.want)
		}
	}
}
