package hooks

import (
	"bytes"
	"crypto/sha1"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/hooks/trailer"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/table"
	"github.com/headgate/headgate/objects/tree"
	"github.com/headgate/headgate/refs"
)

// partOf is the name of the part that the scripted sandbox makes of a query over src.
func partOf(sql, src string) string {
	h := sha1.New()
	fmt.Fprint(h, sql, "src", src)
	part := fmt.Appendf(nil, "PAR1%xPAR1", h.Sum(nil))
	blob := sha1.New()
	fmt.Fprintf(blob, "blob %d\x00%s", len(part), part)
	return table.PartName(objects.OID(blob.Sum(nil)))
}

// partsAt returns the parts of a table in a commit, nil if it is not there.
func (r *rig) partsAt(commit objects.OID, name string) []string {
	r.Helper()
	c, err := readCommit(r.Context(), r.lake.Objects, commit)
	if err != nil {
		r.Fatal(err)
	}
	e, err := tree.Lookup(r.Context(), r.lake.Objects, c.Tree, "tables/"+name)
	if err != nil {
		return nil
	}
	t, err := exec.LoadTable(r.Context(), r.lake.Objects, e.OID)
	if err != nil {
		r.Fatal(err)
	}
	var parts []string
	for _, p := range t.Meta.Parts {
		parts = append(parts, p.File)
	}
	return parts
}

// propose pushes files on top of the tree of a commit to main.
func (r *rig) propose(on objects.OID, files map[string]string, options ...string) error {
	r.Helper()
	ctx := r.Context()
	tip := r.tip(mainRef)
	q, err := r.lake.Objects.Quarantine()
	if err != nil {
		r.Fatal(err)
	}
	c, err := readCommit(ctx, q, on)
	if err != nil {
		r.Fatal(err)
	}
	edits := make(map[string]tree.Edit)
	for path, text := range files {
		oid, err := q.Put(ctx, objects.Blob, int64(len(text)), strings.NewReader(text))
		if err != nil {
			r.Fatal(err)
		}
		edits[path] = tree.Edit{Mode: gitobj.ModeFile, OID: oid}
		if text == "" {
			edits[path] = tree.Edit{Remove: true}
		}
	}
	root, err := tree.Apply(ctx, q, c.Tree, edits)
	if err != nil {
		r.Fatal(err)
	}
	who := gitobj.Signature{Name: "Ada", Email: "ada@example.org", When: time.Unix(1700000000, 0).UTC()}
	data := (&gitobj.Commit{Tree: root, Parents: []objects.OID{tip}, Author: who, Committer: who, Message: "Change it\n"}).Encode()
	oid, err := q.Put(ctx, objects.Commit, int64(len(data)), bytes.NewReader(data))
	if err != nil {
		r.Fatal(err)
	}
	return r.push(q, options, false, refs.Update{Name: mainRef, Old: tip, New: oid})[0].Err
}

// trailerOf returns what a gate commit says of a model.
func (r *rig) trailerOf(commit objects.OID, name string) trailer.Model {
	r.Helper()
	c, err := readCommit(r.Context(), r.lake.Objects, commit)
	if err != nil {
		r.Fatal(err)
	}
	line := lineOf(c, name)
	if line == nil {
		r.Fatalf("gate commit %s says nothing of model %s", commit, name)
	}
	return *line
}

const appending = "-- headgate: strategy=append\nSELECT n FROM src -- "

// event is one state of main in the model of a lake with one appending model.
type event struct {
	commit objects.OID
	action string   // the query and the source
	rows   []string // parts of the table "log"
	prior  int      // index of the event whose rows this one's action was added to, -1 for none
}

// Invariant 2 for tables that build on their past: whatever is pushed, the table
// is the one at the base with the action's rows after it, once, or, after a
// revert, what main had when the action was done.
func TestAppendCountsEachActionOnce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newRig(t)
		var line []event
		src, version := "PAR1 src 0 PAR1", 0
		hand := false // the proposal holds a table "log" of somebody's own
		at := -1      // the event whose tree the proposal starts from
		push := func(files map[string]string, options ...string) {
			sql := fmt.Sprint(appending, version)
			action := sql + src
			var want event
			pushed := []string(nil)
			if at >= 0 && !hand {
				pushed = line[at].rows
			}
			want.action, want.prior = action, len(line)-1
			if n := len(line); n == 0 {
				want.rows = []string{partOf(sql, src)}
			} else {
				base := line[n-1]
				want.rows = append(slices.Clone(base.rows), partOf(sql, src))
				done := func(e event) bool { return e.action == action && slices.Equal(e.rows, pushed) }
				if base.action == action {
					want.rows, want.prior = base.rows, base.prior
				} else if i := n - 1 - slices.IndexFunc(reversed(line), done); i < n && !slices.Equal(pushed, base.rows) {
					want.rows, want.prior = line[i].rows, line[i].prior
				}
			}
			var err error
			if len(line) == 0 {
				err = r.toMain(files, options...)
			} else {
				err = r.propose(line[at].commit, files, options...)
			}
			r.must(err)
			want.commit = r.tip(mainRef)
			if have := r.partsAt(want.commit, "log"); !slices.Equal(have, want.rows) {
				rt.Fatalf("after %d pushes the table has parts %q, want %q", len(line)+1, have, want.rows)
			}
			says := r.trailerOf(want.commit, "log")
			if says.Strategy != "APPEND" || (says.Prior == "") != (want.prior < 0) {
				rt.Fatalf("the trailer says strategy %q, prior %q; want event %d as the prior", says.Strategy, says.Prior, want.prior)
			}
			if want.prior >= 0 && says.Prior != r.trailerOf(line[want.prior].commit, "log").Out {
				rt.Fatalf("the trailer's prior is not the table of event %d", want.prior)
			}
			line = append(line, want)
			at, hand = len(line)-1, false
		}
		push(map[string]string{"tables/src/a.parquet": src, "models/log.sql": fmt.Sprint(appending, version)})
		steps := map[string]func(*rapid.T){
			"new input": func(rt *rapid.T) {
				src = fmt.Sprintf("PAR1 src %d PAR1", rapid.IntRange(0, 3).Draw(rt, "src"))
				push(sourceFiles(r, line[at].commit, src))
			},
			"new code": func(rt *rapid.T) {
				version = rapid.IntRange(0, 2).Draw(rt, "version")
				push(map[string]string{"models/log.sql": fmt.Sprint(appending, version)})
			},
			"a word": func(rt *rapid.T) {
				push(map[string]string{"README.md": rapid.StringMatching(`[a-z]{1,9}`).Draw(rt, "word")})
			},
			"no cache": func(*rapid.T) { push(nil, "no-cache") },
			"hand edit": func(*rapid.T) {
				hand = true
				push(map[string]string{"tables/log/table.json": "", "tables/log/mine.parquet": "PAR1 mine PAR1"})
			},
			"another server": func(rt *rapid.T) {
				env := objects.OID{byte(rapid.IntRange(0, 3).Draw(rt, "env"))}
				r.gate.cfg.Runtime = exec.New(r.boxes, exec.Environments{Worker: env}, exec.Budget{CPUs: 2, Memory: 4 << 30}, slog.New(slog.DiscardHandler))
				push(map[string]string{"README.md": "upgraded"})
			},
			"revert": func(rt *rapid.T) {
				at = rapid.IntRange(0, len(line)-1).Draw(rt, "to")
				src, version = stateOf(line[at].action)
				push(nil)
			},
		}
		// Each push is durable, so that a sequence takes time: short ones find as much.
		for range rapid.IntRange(1, 6).Draw(rt, "pushes") {
			steps[rapid.SampledFrom(slices.Sorted(maps.Keys(steps))).Draw(rt, "push")](rt)
		}
	})
}

func reversed(line []event) []event {
	out := slices.Clone(line)
	slices.Reverse(out)
	return out
}

// stateOf takes an action's text apart.
func stateOf(action string) (src string, version int) {
	rest := strings.TrimPrefix(action, appending)
	at := strings.Index(rest, "PAR1")
	if _, err := fmt.Sscan(rest[:at], &version); err != nil {
		panic(err)
	}
	return rest[at:], version
}

// sourceFiles puts src in the place of the table src, whatever its files are called.
func sourceFiles(r *rig, on objects.OID, src string) map[string]string {
	files := map[string]string{"tables/src/table.json": ""}
	for _, p := range r.partsAt(on, "src") {
		files["tables/src/"+p] = ""
	}
	files["tables/src/new.parquet"] = src
	return files
}

// The whole range of a revert, as git does it: main goes back, and forth again.
func TestRevertTakesAppendedRowsBack(t *testing.T) {
	r := newRig(t)
	sql := fmt.Sprint(appending, 1)
	r.must(r.toMain(map[string]string{"tables/src/a.parquet": "PAR1 src 1 PAR1", "models/log.sql": sql}))
	first := r.tip(mainRef)
	r.must(r.propose(first, sourceFiles(r, first, "PAR1 src 2 PAR1")))
	second := r.tip(mainRef)
	if have := len(r.partsAt(second, "log")); have != 2 {
		t.Fatalf("%d parts after two inputs, want 2", have)
	}
	r.must(r.propose(first, nil))
	if have := r.partsAt(r.tip(mainRef), "log"); !slices.Equal(have, r.partsAt(first, "log")) {
		t.Errorf("after the revert: %q", have)
	}
	r.must(r.propose(second, nil))
	if have := r.partsAt(r.tip(mainRef), "log"); !slices.Equal(have, r.partsAt(second, "log")) {
		t.Errorf("after the revert of the revert: %q", have)
	}
	// Only the derived table is put back: its inputs say otherwise.
	files := map[string]string{}
	for _, p := range r.partsAt(second, "log") {
		files["tables/log/"+p] = ""
	}
	files["tables/log/table.json"] = r.read(first, "tables/log/table.json")
	files["tables/log/"+r.partsAt(first, "log")[0]] = r.read(first, "tables/log/"+r.partsAt(first, "log")[0])
	r.must(r.propose(second, files))
	if have := r.partsAt(r.tip(mainRef), "log"); !slices.Equal(have, r.partsAt(second, "log")) {
		t.Errorf("a derived table that was put back alone: %q", have)
	}
}

// A state that nobody verified is no prior: it could hold anything.
func TestUnverifiedBaseIsNoPrior(t *testing.T) {
	r := newRig(t)
	files := map[string]string{"tables/src/a.parquet": "PAR1 src 1 PAR1", "models/log.sql": fmt.Sprint(appending, 1), "tables/log/a.parquet": "PAR1 mine PAR1"}
	oid, q := r.commit(files)
	const agent = refs.Name("refs/heads/agent/x")
	r.must(r.push(q, nil, false, refs.Update{Name: agent, New: oid})[0].Err)
	oid, q = r.commit(with(files, "README.md", "x"), oid)
	r.must(r.push(q, []string{"run"}, false, refs.Update{Name: agent, Old: r.tip(agent), New: oid})[0].Err)
	if have, want := r.partsAt(r.tip(agent), "log"), []string{partOf(fmt.Sprint(appending, 1), "PAR1 src 1 PAR1")}; !slices.Equal(have, want) {
		t.Errorf("parts %q, want %q", have, want)
	}
	if says := r.trailerOf(r.tip(agent), "log"); says.Prior != "" {
		t.Errorf("prior is %q", says.Prior)
	}
}

func TestStrategyNoneIsNotStored(t *testing.T) {
	r := newRig(t)
	files := with(base(), "models/one.sql", "-- headgate: strategy=none\nSELECT n FROM src", "verifiers/one.sql", "SELECT n FROM one")
	r.must(r.toMain(with(files, "tables/one/a.parquet", "PAR1 mine PAR1")))
	tip := r.tip(mainRef)
	if have := r.partsAt(tip, "one"); have != nil {
		t.Errorf("the table is stored: %q", have)
	}
	if r.partsAt(tip, "two") == nil {
		t.Error("its child is not")
	}
	says := r.trailerOf(tip, "one")
	if says.Strategy != "NONE" || says.Out == "" || r.trailerOf(tip, "two").Inputs[0].Snapshot != says.Out {
		t.Errorf("trailers: %+v, %+v", says, r.trailerOf(tip, "two"))
	}
	rec := r.record(lake.Published)
	if len(rec.Warnings) != 1 || !strings.Contains(rec.Warnings[0], "NONE") {
		t.Errorf("warnings: %q", rec.Warnings)
	}
	if i := slices.IndexFunc(rec.Models, func(m ModelRecord) bool { return m.Name == "one" }); rec.Models[i].Strategy != "NONE" || rec.Models[i].Rows != 1 {
		t.Errorf("record: %+v", rec.Models[i])
	}
	r.boxes.took(protocol.OpModel)
	r.must(r.toMain(with(files, "README.md", "x")))
	if n := r.boxes.took(protocol.OpModel); n != 0 {
		t.Errorf("a push that changes nothing ran %d models: what is not stored is cached too", n)
	}
}
