package hooks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/headgate/headgate/hooks/lineage"
	"github.com/headgate/headgate/objects"
)

// What the server draws is what its own gate signed: of a lake whose gate commits are
// real, up to the source.
func TestLineageOnTheServer(t *testing.T) {
	r := newRig(t)
	r.must(r.toMain(base()))
	first := r.tip(mainRef)
	r.must(r.toMain(with(base(), "notes.txt", "x")))
	g, err := r.gate.Lineage(t.Context(), r.lake, LineageQuestion{Table: "ONE"})
	if err != nil {
		t.Fatal(err)
	}
	if g.Table != "one" || g.Gate != r.tip(mainRef).String() || g.Nodes[0].Kind != "derived" || g.Nodes[0].Since.Commit != first.String() || g.Nodes[0].Since.PushedBy != "ada" || len(g.Notes) != 0 {
		t.Errorf("%+v, %+v", g, g.Nodes[0])
	}
	var sources int
	for _, n := range g.Nodes {
		if n.Kind == "source" && n.Table == "src" && n.Since.By.Author == "Ada" {
			sources++
		}
	}
	if sources != 1 {
		t.Errorf("%d sources in %+v", sources, g.Nodes)
	}
	if g, err = r.gate.Lineage(t.Context(), r.lake, LineageQuestion{Table: "one", Ref: "main~1"}); err != nil || g.Gate != first.String() {
		t.Errorf("at an older commit: %+v, %v", g, err)
	}
	// A copy of a gate commit without its signature is nobody's word.
	c, err := readCommit(t.Context(), r.lake.Objects, r.tip(mainRef))
	if err != nil {
		t.Fatal(err)
	}
	c.GPGSig = ""
	q, err := r.lake.Objects.Quarantine()
	if err != nil {
		t.Fatal(err)
	}
	data := c.Encode()
	forged, err := q.Put(t.Context(), objects.Commit, int64(len(data)), bytes.NewReader(data))
	if err := errors.Join(err, q.Migrate(t.Context()), q.Discard()); err != nil {
		t.Fatal(err)
	}
	if g, err = r.gate.Lineage(t.Context(), r.lake, LineageQuestion{Table: "one", Ref: forged.String()}); err != nil || g.Gate != first.String() {
		t.Errorf("a forged commit: %+v, %v", g, err)
	}
	for name, want := range map[string]string{"nix": `no table "nix" in commit .*`, "no name": "table name", "": "table name"} {
		_, err := r.gate.Lineage(t.Context(), r.lake, LineageQuestion{Table: name})
		var bad *QueryError
		if !errors.As(err, &bad) || !strings.Contains(bad.Text, strings.TrimSuffix(want, ".*")) {
			t.Errorf("%q: %v, want %q", name, err, want)
		}
	}
	if _, err := r.gate.Lineage(t.Context(), r.lake, LineageQuestion{Table: "one", Ref: "nix"}); !errors.As(err, new(*QueryError)) {
		t.Errorf("a ref that is not there: %v", err)
	}
}

// TestPropertyLastChange holds the search, which compares roots first, against one
// commit after another.
func TestPropertyLastChange(t *testing.T) {
	r := newRig(t)
	rapid.Check(t, func(rt *rapid.T) {
		var line []objects.OID
		var states []map[string]string
		files := map[string]string{"headgate.yaml": "branches: {}\n"}
		for i := range rapid.IntRange(1, 12).Draw(rt, "commits") {
			for _, path := range []string{"tables/a/x.parquet", "tables/b/x.parquet", "tables/ns/c/x.parquet", "notes.txt"} {
				switch rapid.IntRange(0, 5).Draw(rt, path) {
				case 0:
					files = with(files, path, fmt.Sprintf("content %d", rapid.IntRange(0, 2).Draw(rt, "content")))
				case 1:
					files = with(files, path, "")
				}
			}
			var parents []objects.OID
			if i > 0 {
				parents = []objects.OID{line[i-1]}
			}
			oid, q := r.commit(files, parents...)
			if err := errors.Join(q.Migrate(context.Background()), q.Discard()); err != nil {
				rt.Fatal(err)
			}
			line, states = append(line, oid), append(states, files)
		}
		h := &storedHistory{r: r.lake.Objects, left: 1 << 20}
		for dir, path := range map[string]string{"tables/a": "tables/a/x.parquet", "tables/b": "tables/b/x.parquet", "tables/ns/c": "tables/ns/c/x.parquet"} {
			want := objects.OID{}
			for i := len(line) - 1; i >= 0; i-- {
				if i == 0 && states[0][path] != "" || i > 0 && states[i][path] != states[i-1][path] {
					want = line[i]
					break
				}
			}
			got, err := h.LastChange(context.Background(), line[len(line)-1], dir)
			if err != nil || got != want {
				rt.Fatalf("%s changed last in %s, %v; want %s", dir, got, err, want)
			}
		}
	})
	h := &storedHistory{r: r.lake.Objects, left: 2}
	r.must(r.toMain(base()))
	r.must(r.toMain(with(base(), "a.txt", "x")))
	r.must(r.toMain(with(base(), "b.txt", "x")))
	if _, err := lineage.Draw(t.Context(), h, r.tip(mainRef), "one", lineage.Options{}); !errors.Is(err, errLineageTooLong) {
		t.Errorf("a lineage without a bound: %v", err)
	}
}
