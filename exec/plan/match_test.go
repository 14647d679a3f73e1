package plan

import (
	"path"
	"slices"
	"strings"
	"testing"
)

// matchSlowly is what matchParts means, in all ways that there are to match.
func matchSlowly(pattern, name []string) bool {
	if len(pattern) == 0 {
		return len(name) == 0
	}
	if pattern[0] == "**" {
		return slices.ContainsFunc(make([]struct{}, len(name)+1), func(struct{}) bool {
			defer func() {
				if len(name) > 0 {
					name = name[1:]
				}
			}()
			return matchSlowly(pattern[1:], name)
		})
	}
	if len(name) == 0 {
		return false
	}
	ok, err := path.Match(pattern[0], name[0])
	return err == nil && ok && matchSlowly(pattern[1:], name[1:])
}

func FuzzMatchParts(f *testing.F) {
	for _, c := range [][2]string{{"**/a.sql", "a.sql"}, {"a/**/b/*.sql", "a/x/b/y/b/z.sql"}, {"**/**", "a/b"}, {"a/**", "a"}, {"**/*/**/c", "a/c"}, {"[a", "a"}, {"*", ""}} {
		f.Add(c[0], c[1])
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		p, n := strings.Split(pattern, "/"), strings.Split(name, "/")
		if len(p) > 6 || len(n) > 8 {
			return
		}
		if got, want := matchParts(p, n), matchSlowly(p, n); got != want {
			t.Errorf("%q matches %q: %t, want %t", pattern, name, got, want)
		}
	})
}

// FuzzWithVariables holds that literals and comments stay as they are, and that what
// takes a variable's place is one call.
func FuzzWithVariables(f *testing.F) {
	for _, s := range []string{"day = $day", "'$no' || $yes", "e'\\'$a' $b", "-- $a\n$b", "/* $a */ $b", "$$ $a $$", "$t$ $a $t$ $b", "$1 $2", "a$b", "\"$a\" $b", "'unclosed $a", "$é", "$a$b$c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		out, names := withVariables(sql)
		if strings.Count(out, "\n") != strings.Count(sql, "\n") {
			t.Errorf("%q became %q: its lines moved", sql, out)
		}
		if len(names) == 0 && out != sql {
			t.Errorf("%q became %q", sql, out)
		}
		for i, name := range names {
			if name == "" || strings.ContainsAny(name, "'\"$\\ \n") || slices.Contains(names[:i], name) || !strings.Contains(out, "getvariable('"+name+"')") {
				t.Errorf("%q reads %q in %q", sql, names, out)
			}
		}
	})
}
