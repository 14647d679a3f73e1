package lineage_test

import (
	"context"
	"crypto/sha1"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/hooks/lineage"
	"github.com/headgate/headgate/hooks/trailer"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
)

// world is a made-up history: commits and the snapshots of their tables.
type world struct {
	commits map[objects.OID]*gitobj.Commit
	tables  map[objects.OID]map[string]objects.OID // commit -> directory -> snapshot
	n       int
}

func oid(text string) objects.OID { return sha1.Sum([]byte(text)) }

func newWorld() *world {
	return &world{commits: make(map[objects.OID]*gitobj.Commit), tables: make(map[objects.OID]map[string]objects.OID)}
}

// commit adds one; tables are "name=content".
func (w *world) commit(author, message string, tables []string, parents ...objects.OID) objects.OID {
	w.n++
	id := oid(fmt.Sprint(w.n, message))
	who := gitobj.Signature{Name: author, Email: author + "@example.org", When: time.Unix(int64(1700000000+w.n), 0).UTC()}
	w.commits[id] = &gitobj.Commit{Parents: parents, Author: who, Committer: who, Message: message}
	w.tables[id] = make(map[string]objects.OID)
	for _, t := range tables {
		name, content, _ := strings.Cut(t, "=")
		w.tables[id]["tables/"+strings.ReplaceAll(name, ".", "/")] = oid(content)
	}
	return id
}

// gate publishes a proposal. models are "name=content<in,in", with content of the
// inputs taken from tables; "name=content<in^prior" adds to a prior.
func (w *world) gate(tables, models []string, base, proposal objects.OID) objects.OID {
	content := make(map[string]string)
	for _, t := range append(slices.Clone(tables), models...) {
		t, _, _ = strings.Cut(t, "<")
		name, c, _ := strings.Cut(t, "=")
		content[name] = c
	}
	g := trailer.Gate{RunID: fmt.Sprintf("01J9ZQ4T3N8Y6W2K5D7F0H1M%02d", w.n%100), Base: base, Proposal: proposal, PushedBy: "key of " + w.commits[proposal].Author.Name}
	all := slices.Clone(tables)
	for _, m := range models {
		made, from, _ := strings.Cut(m, "<")
		from, prior, appends := strings.Cut(from, "^")
		name, out, _ := strings.Cut(made, "=")
		line := trailer.Model{Name: name, Code: "c0de", Env: "e4", Out: oid(out).String(), Rows: 12}
		for in := range strings.SplitSeq(from, ",") {
			line.Inputs = append(line.Inputs, trailer.Input{Table: in, Snapshot: oid(content[in]).String()})
		}
		if appends {
			line.Strategy = "APPEND"
			if prior != "" {
				line.Prior = oid(prior).String()
			}
		}
		if out == "none" {
			line.Strategy = "NONE"
		} else {
			all = append(all, made)
		}
		g.Models = append(g.Models, line)
	}
	return w.commit("Headgate", "Publish\n\n"+g.Format(), all, base, proposal)
}

func (w *world) Commit(_ context.Context, id objects.OID) (*gitobj.Commit, error) {
	if c := w.commits[id]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("%w: %s", objects.ErrNotFound, id)
}

func (w *world) Tree(_ context.Context, id objects.OID, dir string) (objects.OID, error) {
	if w.commits[id] == nil {
		return objects.OID{}, fmt.Errorf("%w: %s", objects.ErrNotFound, id)
	}
	return w.tables[id][dir], nil
}

func (w *world) LastChange(_ context.Context, id objects.OID, dir string) (objects.OID, error) {
	for {
		c := w.commits[id]
		if c == nil {
			return objects.OID{}, fmt.Errorf("%w: %s", objects.ErrNotFound, id)
		}
		if len(c.Parents) == 0 || w.commits[c.Parents[0]] == nil {
			if w.tables[id][dir].IsZero() {
				return objects.OID{}, nil
			}
			return id, nil
		}
		if w.tables[id][dir] != w.tables[c.Parents[0]][dir] {
			return id, nil
		}
		id = c.Parents[0]
	}
}

func draw(t *testing.T, w *world, tip objects.OID, name string, opt lineage.Options) (*lineage.Graph, map[string]*lineage.Node) {
	t.Helper()
	g, err := lineage.Draw(t.Context(), w, tip, name, opt)
	if err != nil {
		t.Fatal(err)
	}
	nodes := make(map[string]*lineage.Node)
	for _, n := range g.Nodes {
		nodes[n.ID] = n
	}
	return g, nodes
}

func id(table, content string) string { return table + "@" + oid(content).String() }

func TestLineageGoesUpToTheSources(t *testing.T) {
	w := newWorld()
	root := w.commit("Headgate", "Open", nil)
	ada := w.commit("Ada", "Flights", []string{"flights=f1", "ns.airports=a1"})
	g1 := w.gate([]string{"flights=f1", "ns.airports=a1"}, []string{"clean=c1<flights", "daily=d1<clean,ns.airports"}, root, ada)
	// Grace's commit is merged into a proposal of Ken's that does something else.
	grace := w.commit("Grace", "More flights", []string{"flights=f2", "ns.airports=a1", "clean=c1", "daily=d1"}, g1)
	ken := w.commit("Ken", "Merge", []string{"flights=f2", "ns.airports=a1", "clean=c1", "daily=d1"}, g1, grace)
	g2 := w.gate([]string{"flights=f2", "ns.airports=a1"}, []string{"clean=c2<flights", "daily=d2<clean,ns.airports"}, g1, ken)
	other := w.commit("Lin", "Something else", []string{"flights=f2", "ns.airports=a1", "clean=c2", "daily=d2"}, g2)
	g3 := w.gate([]string{"flights=f2", "ns.airports=a1"}, []string{"clean=c2<flights", "daily=d2<clean,ns.airports"}, g2, other)
	local := w.commit("Me", "A local commit", []string{"flights=f2", "ns.airports=a1", "clean=c2", "daily=d2"}, g3)

	g, nodes := draw(t, w, local, "daily", lineage.Options{})
	if g.Gate != g3.String() || g.Commit != local.String() || g.Nodes[0].ID != id("daily", "d2") || len(g.Nodes) != 4 || len(g.Notes) != 0 {
		t.Fatalf("%+v", g)
	}
	daily, clean, flights, airports := g.Nodes[0], nodes[id("clean", "c2")], nodes[id("flights", "f2")], nodes[id("ns.airports", "a1")]
	if !slices.Equal(daily.Inputs, []string{clean.ID, airports.ID}) || !slices.Equal(clean.Inputs, []string{flights.ID}) || len(flights.Inputs)+len(airports.Inputs) != 0 {
		t.Errorf("edges: %v, %v", daily.Inputs, clean.Inputs)
	}
	if daily.Kind != "derived" || flights.Kind != "source" || flights.Model != nil || daily.Model.Gate != g3.String() || daily.Model.Rows != 12 || daily.Model.Code != "c0de" {
		t.Errorf("%+v, %+v", daily, flights)
	}
	for n, want := range map[*lineage.Node]struct{ since, by, pushed string }{
		daily: {g2.String(), ken.String(), "key of Ken"}, flights: {g2.String(), grace.String(), "key of Ken"}, airports: {g1.String(), ada.String(), "key of Ada"},
	} {
		if n.Since == nil || n.Since.Commit != want.since || n.Since.By == nil || n.Since.By.Commit != want.by || n.Since.PushedBy != want.pushed {
			t.Errorf("%s is since %+v, want %+v", n.ID, n.Since, want)
		}
	}
	// At an older state it is what was then.
	g, _ = draw(t, w, g1, "daily", lineage.Options{})
	if g.Nodes[0].ID != id("daily", "d1") || g.Nodes[0].Since.Commit != g1.String() {
		t.Errorf("%+v", g.Nodes[0])
	}
	// Who trusts no gate is told so.
	g, _ = draw(t, w, g3, "daily", lineage.Options{IsGate: func(*gitobj.Commit) bool { return false }})
	if g.Gate != "" || g.Nodes[0].Kind != "unknown" || len(g.Notes) != 1 || len(g.Nodes) != 1 {
		t.Errorf("%+v", g)
	}
}

func TestLineageOfAppends(t *testing.T) {
	w := newWorld()
	base := w.commit("Headgate", "Open", nil)
	var gates []objects.OID
	tables := []string{}
	for i := range 30 {
		day, log := fmt.Sprintf("day=x%d", i), fmt.Sprintf("log=l%d", i)
		p := w.commit("Ada", "Day", append([]string{day}, tables...), base)
		prior := ""
		if i > 0 {
			prior = fmt.Sprintf("l%d", i-1)
		}
		base = w.gate([]string{day}, []string{fmt.Sprintf("%s<day^%s", log, prior)}, base, p)
		tables = []string{log}
		gates = append(gates, base)
	}
	g, nodes := draw(t, w, base, "log", lineage.Options{})
	if len(g.Nodes) != 60 || len(g.Notes) != 0 {
		t.Fatalf("%d nodes, notes %v", len(g.Nodes), g.Notes)
	}
	for i := range 30 {
		n := nodes[id("log", fmt.Sprintf("l%d", i))]
		if n.Model.Gate != gates[i].String() || n.Inputs[0] != id("day", fmt.Sprintf("x%d", i)) || (i > 0) != (n.Prior != "") {
			t.Fatalf("state %d: %+v, %+v", i, n, n.Model)
		}
	}
	g, _ = draw(t, w, base, "log", lineage.Options{Priors: 3})
	if len(g.Nodes) != 8 || len(g.Notes) != 1 || !strings.Contains(g.Notes[0], "what came before, which is not shown") {
		t.Errorf("%d nodes, notes %v", len(g.Nodes), g.Notes)
	}
}

func TestLineageThatIsNotWhole(t *testing.T) {
	w := newWorld()
	root := w.commit("Headgate", "Open", nil)
	p := w.commit("Ada", "Flights", []string{"flights=f1"})
	g1 := w.gate([]string{"flights=f1"}, []string{"daily=d1<flights", "scratch=none<flights"}, root, p)
	// A model whose table is not stored.
	g, nodes := draw(t, w, g1, "scratch", lineage.Options{})
	if g.Nodes[0].Since != nil || g.Nodes[0].Model.Strategy != "NONE" || nodes[id("flights", "f1")] == nil {
		t.Errorf("%+v", g.Nodes[0])
	}
	// The user's own, which no gate has seen.
	mine := w.commit("Me", "Mine", []string{"flights=mine", "daily=d1"}, g1)
	g, _ = draw(t, w, mine, "flights", lineage.Options{})
	if n := g.Nodes[0]; n.Kind != "unknown" || n.Since.Commit != mine.String() || n.Since.Run != "" || n.Since.By.Author != "Me" || g.Gate != "" || len(g.Notes) != 1 {
		t.Errorf("%+v, %v", g.Nodes[0], g.Notes)
	}
	if _, err := lineage.Draw(t.Context(), w, mine, "nix", lineage.Options{}); !errors.As(err, new(*lineage.NoTableError)) {
		t.Errorf("a table that is not there: %v", err)
	}
	// A message that says something else than its tree.
	w.tables[g1]["tables/flights"] = oid("forged")
	g, _ = draw(t, w, g1, "daily", lineage.Options{})
	if len(g.Notes) != 1 || !strings.Contains(g.Notes[0], "and its tree has") {
		t.Errorf("a forged message: %v", g.Notes)
	}
	// A shallow clone: neither the proposal nor the base is there.
	w.tables[g1]["tables/flights"] = oid("f1")
	delete(w.commits, p)
	delete(w.commits, root)
	g, nodes = draw(t, w, g1, "daily", lineage.Options{})
	if n := nodes[id("flights", "f1")]; len(g.Nodes) != 2 || n.Since.Commit != g1.String() || n.Since.By != nil {
		t.Errorf("%+v", n)
	}
}

func TestDrawings(t *testing.T) {
	w := newWorld()
	root := w.commit("Headgate", "Open", nil)
	p := w.commit("Ada \x1b[31m", `Say "hi\"`, []string{"a=a1"})
	g1 := w.gate([]string{"a=a1"}, []string{"b=b1<a", "c=c1<a,b"}, root, p)
	g, _ := draw(t, w, g1, "c", lineage.Options{})
	var text, dot strings.Builder
	if err := errors.Join(g.WriteText(&text), g.WriteDOT(&dot)); err != nil {
		t.Fatal(err)
	}
	s := func(c string) string { return oid(c).String()[:10] }
	since := fmt.Sprintf("since %s, 2023-11-14T22:13:23Z, run 01J9ZQ4T3N8Y6W2K5D7F0H1M02, pushed by key of Ada ?[31m: %s Say \"hi\\\" (Ada ?[31m)", g1.String()[:10], p.String()[:10])
	want := strings.Join([]string{
		"c@" + s("c1") + "  12 rows", "│   model code=c0de env=e4", "│   " + since,
		"├── a@" + s("a1") + "  source", "│       " + since,
		"└── b@" + s("b1") + "  12 rows", "    │   model code=c0de env=e4", "    │   " + since,
		"    └── a@" + s("a1") + "  (see above)", "",
	}, "\n")
	if text.String() != want {
		t.Errorf("text:\n%s\nwant:\n%s", &text, want)
	}
	for _, line := range []string{`digraph "c" {`, `"` + id("a", "a1") + `" -> "` + id("c", "c1") + `";`, "shape=cylinder", `Ada ?[31m`} {
		if !strings.Contains(dot.String(), line) {
			t.Errorf("DOT lacks %s:\n%s", line, &dot)
		}
	}
	doc, err := json.Marshal(g)
	if err != nil {
		t.Fatal(err)
	}
	var back map[string]any
	if err := json.Unmarshal(doc, &back); err != nil || back["format"] != 1.0 {
		t.Errorf("%s: %v", slices.Collect(maps.Keys(back)), err)
	}
}
