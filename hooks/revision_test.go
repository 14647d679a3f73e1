package hooks

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/table"
	"github.com/headgate/headgate/objects/tree"
	"github.com/headgate/headgate/refs"
)

// revisionRig is a lake with three gate commits on main, the tag objects v1 (of the first)
// and v2 (of v1), and a branch.
func revisionRig(t *testing.T) (r *rig, gates []objects.OID) {
	r = newRig(t)
	files := map[string]string{}
	for i := range 3 {
		files = with(files, fmt.Sprintf("f%d.txt", i), "x")
		r.must(r.toMain(files))
		gates = append(gates, r.tip(mainRef))
	}
	q, err := r.lake.Objects.Quarantine()
	if err != nil {
		t.Fatal(err)
	}
	tag := func(of objects.OID, kind objects.Type, name string) objects.OID {
		data := (&gitobj.Tag{Object: of, Type: kind, Name: name, Tagger: &gitobj.Signature{Name: "A", Email: "a@b", When: time.Unix(1, 0).UTC()}, Message: "x\n"}).Encode()
		oid, err := q.Put(t.Context(), objects.Tag, int64(len(data)), bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		return oid
	}
	v1 := tag(gates[0], objects.Commit, "v1")
	v2 := tag(v1, objects.Tag, "v2")
	if err := q.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := q.Discard(); err != nil {
		t.Fatal(err)
	}
	for name, oid := range map[refs.Name]objects.OID{"refs/tags/v1": v1, "refs/tags/v2": v2, "refs/heads/agent/x": gates[1]} {
		if err := r.lake.Refs.Apply(t.Context(), []refs.Update{{Name: name, New: oid}}, refs.Cause{Who: "ada", Why: "push"}); err != nil {
			t.Fatal(err)
		}
	}
	return r, gates
}

func TestRevisions(t *testing.T) {
	r, gates := revisionRig(t)
	parents := func(oid objects.OID) []objects.OID {
		c, err := readCommit(t.Context(), r.lake.Objects, oid)
		if err != nil {
			t.Fatal(err)
		}
		return c.Parents
	}
	for text, want := range map[string]objects.OID{
		"": gates[2], "main": gates[2], "HEAD": gates[2], "@": gates[2], "refs/heads/main": gates[2], "heads/main": gates[2],
		"main~1": gates[1], "main~": gates[1], "HEAD~2": gates[0], "@~1~1": gates[0], "main^": gates[1], "main^1": gates[1],
		"main^2": parents(gates[2])[1], "main~1^2": parents(gates[1])[1], "main^^": gates[0], "main^0": gates[2],
		"main^{commit}": gates[2], "main^{}~1": gates[1], "main^2~1": gates[1],
		"v1": gates[0], "v2": gates[0], "v2^{}": gates[0], "tags/v1^2": parents(gates[0])[1], "agent/x": gates[1], "agent/x~1": gates[0],
		gates[1].String(): gates[1], gates[1].String() + "~1": gates[0], gates[1].String()[:8]: gates[1], strings.ToUpper(gates[1].String()[:9]) + "^": gates[0],
		"main@{0}": gates[2], "main@{1}": gates[1], "main@{2}": gates[0], "@{1}~1": gates[0], "main@{now}": gates[2],
		"main@{2999-01-01}": gates[2], "main@{0 seconds ago}": gates[2],
	} {
		got, err := resolveCommit(t.Context(), r.lake, text)
		if err != nil || got != want {
			t.Errorf("%q is %s, %v; want %s", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"nix":                       `no branch, tag, ref or commit "nix" in lake`,
		"nix~1":                     `"nix"`,
		"beef":                      `"beef"`,
		"main~9":                    "has 0 parent(s)",
		"main^3":                    "has 2 parent(s)",
		"main~100001":               "0 parent(s)",
		"main~x":                    "is not known here",
		"main^{tree}":               `"^{tree}" in revision "main^{tree}" is not known here`,
		"main^{/words}":             "is not known here",
		"main~-1":                   "is not known here",
		"main:tables":               "is not one commit",
		"main..v1":                  "is not one commit",
		"main@{99}":                 "has only 3 move(s)",
		"main@{1970-01-01}":         "does not go back to 1970-01-01",
		"main@{teatime}":            "@{teatime}: want a number of moves",
		"main@{1":                   "is not known here",
		"main@{upstream}":           "want a number of moves",
		"main~99999999999999999999": "is not known here",
		"0123456789012345678901234567890123456789": "there is no commit 0123456789",
		strings.Repeat("x", 2000):                  "a revision of 2000 bytes",
	} {
		got, err := resolveCommit(t.Context(), r.lake, text)
		var q *QueryError
		if !errors.As(err, &q) || !strings.Contains(q.Text, want) {
			t.Errorf("%q: %s, %v; want a refusal with %q", text, got, err, want)
		}
	}
}

func TestTimesOfReflogs(t *testing.T) {
	now := time.Date(2026, 11, 24, 15, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"now": now, "yesterday": now.AddDate(0, 0, -1), "3 days ago": now.AddDate(0, 0, -3), "2.hours.ago": now.Add(-2 * time.Hour), "1 Week ago": now.AddDate(0, 0, -7),
		"2026-11-01": time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), "2026-11-01T12:30:00Z": time.Date(2026, 11, 1, 12, 30, 0, 0, time.UTC),
		"2026-11-01 12:30": time.Date(2026, 11, 1, 12, 30, 0, 0, time.UTC), "2026-11-01T12:30:00+01:00": time.Date(2026, 11, 1, 11, 30, 0, 0, time.UTC),
	} {
		if got, err := parseTime(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q is %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "last tuesday", "x days ago", "-1 days ago", "3 fortnights ago", "999999999 weeks ago"} {
		if got, err := parseTime(text, now); err == nil {
			t.Errorf("%q is %s", text, got)
		}
	}
}

func TestTablesOfRevisions(t *testing.T) {
	r := newRig(t)
	one := map[string]string{"tables/t/a.parquet": "PAR1....PAR1...."}
	r.must(r.toMain(one))
	r.must(r.toMain(with(one, "tables/t/a.parquet", "PAR1----PAR1----", "tables/ns/u/a.parquet", "PAR1----PAR1----")))
	tip := r.tip(mainRef)
	id := func(rev, dir string) objects.OID {
		commit, err := resolveCommit(t.Context(), r.lake, rev)
		if err != nil {
			t.Fatal(err)
		}
		c, err := readCommit(t.Context(), r.lake.Objects, commit)
		if err != nil {
			t.Fatal(err)
		}
		e, err := tree.Lookup(t.Context(), r.lake.Objects, c.Tree, dir)
		if err != nil {
			t.Fatal(err)
		}
		return e.OID
	}
	s := &states{lake: r.lake, asked: tip, found: make(map[objects.OID][]table.Table)}
	now, old, other := id("main", "tables/t"), id("main~1", "tables/t"), id("main", "tables/ns/u")
	if now == old {
		t.Fatal("nothing changed")
	}
	for name, want := range map[string]objects.OID{
		"t": now, "T": now, "t@main": now, "t@main~1": old, "base.t": old, "BASE.t": old, "ns.u@HEAD": other, "NS.U": other, "t@" + tip.String()[:10]: now,
	} {
		if got, err := s.table(t.Context(), name); err != nil || got != want {
			t.Errorf("%s is %s, %v; want %s", name, got, err, want)
		}
	}
	for name, want := range map[string]string{
		"x":           `there is no table "x" in commit ` + short(tip) + "; there are: ns.u, t",
		"ns.u@main~1": `there is no table "ns.u" in commit `,
		"base.ns.u":   `there are: t`,
		"t@":          "one revision belongs behind the @",
		"base.t@v1":   "base is one already",
		"t@nix":       `no branch, tag, ref or commit "nix"`,
		"t@main~2":    "has no tables",
	} {
		got, err := s.table(t.Context(), name)
		var q *QueryError
		if !errors.As(err, &q) || !strings.Contains(q.Text, want) {
			t.Errorf("%s: %s, %v; want a refusal with %q", name, got, err, want)
		}
	}
}
