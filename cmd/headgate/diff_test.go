package main

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// TestDiffTakesArgumentsAsGitDoes: flags stand anywhere before --, and what follows it
// are paths, whatever they look like.
func TestDiffTakesArgumentsAsGitDoes(t *testing.T) {
	for _, tc := range []struct {
		line  string
		args  []string
		paths []string
		limit int64
		stat  bool
	}{
		{"diff", nil, nil, -1, false},
		{"diff A B", []string{"A", "B"}, nil, -1, false},
		{"diff A --stat B", []string{"A", "B"}, nil, -1, true},
		{"diff A --limit 3 B -- --stat tables/x", []string{"A", "B"}, []string{"--stat", "tables/x"}, 3, false},
		{"diff -n 4 A..B --", []string{"A..B"}, []string{}, 4, false},
		{"diff A -n5 -- -- x,y", []string{"A"}, []string{"--", "x,y"}, 5, false},
		{"diff --limit=0 -- A", nil, []string{"A"}, 0, false},
	} {
		var c cli
		parser, err := kong.New(&c, kong.Vars{"diff_limit": "1000"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parser.Parse(asGitTakesThem(parser, strings.Fields(tc.line))); err != nil {
			t.Errorf("%s: %v", tc.line, err)
			continue
		}
		d := c.Diff
		limit := int64(-1)
		if d.Limit != nil {
			limit = *d.Limit
		}
		if !slices.Equal(d.Args, tc.args) || !slices.Equal(d.Path, tc.paths) || d.Dashes != (tc.paths != nil) || limit != tc.limit || d.Stat != tc.stat {
			t.Errorf("%s: arguments %q, paths %q (--: %v), limit %d, stat %v", tc.line, d.Args, d.Path, d.Dashes, limit, d.Stat)
		}
	}
}

// TestSidesOfADiff: what git rev-parse makes of revisions, as git diff takes it.
func TestSidesOfADiff(t *testing.T) {
	index, disk := diffSide{name: "the index"}, diffSide{name: "the files on disk", disk: true}
	tree := func(oid string) diffSide { return diffSide{name: oid, tree: oid} }
	for _, tc := range []struct {
		revisions string
		cached    bool
		old, new  diffSide
	}{
		{"", false, index, disk},
		{"", true, tree("HEAD"), index},
		{"a", false, tree("a"), disk},
		{"a", true, tree("a"), index},
		{"a b", false, tree("a"), tree("b")},
		{"b ^a", false, tree("a"), tree("b")},         // a..b
		{"b a ^base", false, tree("base"), tree("b")}, // a...b
	} {
		var cmp comparison
		if err := cmp.sides(strings.Fields(tc.revisions), tc.cached); err != nil || !reflect.DeepEqual([]diffSide{cmp.old, cmp.new}, []diffSide{tc.old, tc.new}) {
			t.Errorf("%q, cached %v: %+v and %+v, %v", tc.revisions, tc.cached, cmp.old, cmp.new, err)
		}
	}
	for _, bad := range []string{"a b c", "^a", "a ^b ^c"} {
		var cmp comparison
		if err := cmp.sides(strings.Fields(bad), false); err == nil {
			t.Errorf("%q: %+v and %+v", bad, cmp.old, cmp.new)
		}
	}
}
