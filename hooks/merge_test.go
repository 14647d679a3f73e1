package hooks

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/hooks/lake"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/history"
	"github.com/headgate/headgate/refs"
)

const forMain = refs.Name("refs/for/main")

// proposeOn pushes files on top of a commit to refs/for/main.
func (r *rig) proposeOn(files map[string]string, on objects.OID, options ...string) (objects.OID, error) {
	r.Helper()
	oid, q := r.commit(files, on)
	return oid, r.push(q, options, false, refs.Update{Name: forMain, New: oid})[0].Err
}

// text is a file of lines, of which each can be changed without touching another change.
func text(change ...string) string {
	lines := strings.Split("one\ntwo\nthree\nfour\nfive\nsix\n", "\n")
	for i := 0; i < len(change); i += 2 {
		lines[slices.Index(lines, change[i])] = change[i+1]
	}
	return strings.Join(lines, "\n")
}

func TestProposalFromAnyBaseIsMerged(t *testing.T) {
	r := newRig(t)
	start := with(base(), "README.md", text())
	r.must(r.toMain(start))
	from := r.tip(mainRef)
	r.must(r.toMain(with(start, "README.md", text("two", "TWO"), "models/one.sql", "SELECT 1 FROM src", "models/new.sql", "SELECT 3 FROM src")))
	tip := r.tip(mainRef)
	proposal, err := r.proposeOn(with(start, "README.md", text("five", "FIVE"), "models/two.sql", "SELECT 2 FROM one", "tables/one/a.parquet", "PAR1 hand-made PAR1"), from)
	r.must(err)
	now := r.tip(mainRef)
	c, err := readCommit(r.Context(), r.lake.Objects, now)
	r.must(err)
	if !slices.Equal(c.Parents, []objects.OID{tip, proposal}) || !r.gate.isGateCommit(c) {
		t.Errorf("main has the parents %v, want the old tip %s and the proposal %s", c.Parents, tip, proposal)
	}
	for path, want := range map[string]string{
		"README.md": text("two", "TWO", "five", "FIVE"), "models/one.sql": "SELECT 1 FROM src", "models/two.sql": "SELECT 2 FROM one", "models/new.sql": "SELECT 3 FROM src",
	} {
		if got := r.read(now, path); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	rec := r.record(lake.Published)
	if rec.Merge == nil || rec.Merge.Base != from.String() || !slices.Equal(rec.Merge.Files, []string{"README.md"}) || len(rec.Merge.Tables) > 0 {
		t.Errorf("record of the merge: %+v", rec.Merge)
	}
	// The derived table is what its model gives on the merged state.
	if got := r.read(now, "tables/one/table.json"); !strings.Contains(got, `"rows":1`) {
		t.Errorf("tables/one/table.json: %s", got)
	}
	_, err = r.proposeOn(start, now)
	r.must(err) // contains the tip: nothing to merge
	if rec := r.record(lake.Published); rec.Merge != nil {
		t.Errorf("a proposal with the tip in it was merged: %+v", rec.Merge)
	}
	for _, oid := range []objects.OID{proposal, from} {
		_, q := r.commit(start)
		if err := r.push(q, nil, false, refs.Update{Name: forMain, New: oid})[0].Err; err == nil || !strings.Contains(err.Error(), "contains this commit already") {
			t.Errorf("proposing what main contains: %v", err)
		}
	}
}

func TestConflictsOfFilesAreListed(t *testing.T) {
	r := newRig(t)
	start := with(base(), "README.md", text(), "bin", "a\x00b", "old.txt", "old")
	r.must(r.toMain(start))
	from := r.tip(mainRef)
	r.must(r.toMain(with(start, "README.md", text("two", "TWO"), "bin", "a\x00c", "old.txt", "")))
	tip := r.tip(mainRef)
	_, err := r.proposeOn(with(start, "README.md", text("two", "zwei"), "bin", "a\x00d", "old.txt", "new"), from)
	var rejected *Rejection
	if !errors.As(err, &rejected) || r.tip(mainRef) != tip {
		t.Fatalf("got %v, main moved: %v", err, r.tip(mainRef) != tip)
	}
	want := []string{"README.md: both sides changed the same lines", "bin: changed on both sides, and no text", "old.txt: deleted on our side, changed on the other"}
	if len(rejected.Reasons) != len(want) {
		t.Fatalf("reasons %q", rejected.Reasons)
	}
	for i, w := range want {
		if !strings.Contains(rejected.Reasons[i], "conflict with main in "+w) {
			t.Errorf("reason %q, want %q", rejected.Reasons[i], w)
		}
	}
	if rec := r.record(lake.Rejected); len(rec.Merge.Conflicts) != 3 || !strings.Contains(rec.Reasons[2], "git merge origin/main") {
		t.Errorf("record %+v, reasons %q", rec.Merge, rec.Reasons)
	}
}

func TestTablesThatBothChangedAreMerged(t *testing.T) {
	r := newRig(t)
	policy := "tables: {src: {key: [n]}}\n"
	start := with(base(), "headgate.yaml", policy, "tables/src/README.md", text())
	r.must(r.toMain(start))
	from := r.tip(mainRef)
	r.must(r.toMain(with(start, "tables/src/a.parquet", "PAR1 ours PAR1", "tables/src/README.md", text("two", "TWO"))))
	tip := r.tip(mainRef)
	proposed := with(start, "tables/src/a.parquet", "PAR1 theirs PAR1", "tables/src/README.md", text("five", "FIVE"))
	r.boxes.conflicts = 7
	_, err := r.proposeOn(proposed, from)
	var rejected *Rejection
	if !errors.As(err, &rejected) || !strings.Contains(err.Error(), "table src: 7 conflict(s) with main, see SELECT * FROM conflicts.src") || r.tip(mainRef) != tip {
		t.Fatalf("got %v", err)
	}
	scratch := r.tip(scratchPrefix + refs.Name(rejected.Run))
	if got := r.read(scratch, "tables/conflicts/src/table.json"); !strings.Contains(got, `"rows":1`) {
		t.Errorf("the conflicts in the scratch state: %s", got)
	}
	// A fork of that state is judged like anything else, and has what must not be published.
	q, qerr := r.lake.Objects.Quarantine()
	r.must(qerr)
	if err := r.push(q, nil, false, refs.Update{Name: forMain, New: scratch})[0].Err; err == nil || !strings.Contains(err.Error(), "conflicts.src: these are conflicts of a merge") {
		t.Errorf("a state with conflicts was pushed: %v", err)
	}
	r.boxes.conflicts = 0
	_, err = r.proposeOn(proposed, from)
	r.must(err)
	now := r.tip(mainRef)
	if got := r.read(now, "tables/src/README.md"); got != text("two", "TWO", "five", "FIVE") {
		t.Errorf("README beside the parts: %q", got)
	}
	if got := r.read(now, "tables/src/"+r.partOf(now, "src")); got != "PAR1 merged PAR1" {
		t.Errorf("the merged table holds %q", got)
	}
	if rec := r.record(lake.Published); len(rec.Merge.Tables) != 1 || rec.Merge.Tables[0].Name != "src" || rec.Merge.Tables[0].Snapshot == "" {
		t.Errorf("record of the merge: %+v", rec.Merge)
	}
}

// partOf returns the file of a table's one part.
func (r *rig) partOf(commit objects.OID, table string) string {
	r.Helper()
	_, rest, ok := strings.Cut(r.read(commit, "tables/"+table+"/table.json"), `"file":"`)
	if !ok {
		r.Fatal("no part")
	}
	file, _, _ := strings.Cut(rest, `"`)
	return file
}

// A tip that moves while a proposal is judged costs the proposer nothing: it is
// merged with the new tip and judged again.
func TestProposalIsMergedAgainWhenTheTipMoves(t *testing.T) {
	r := newRig(t)
	start := with(base(), "README.md", text())
	r.must(r.toMain(start))
	from := r.tip(mainRef)
	moved := 0
	r.boxes.during = func() {
		if moved == 3 {
			return
		}
		moved++ // first, since the run below gets here too
		n := moved
		r.boxes.mu.Lock()
		during := r.boxes.during
		r.boxes.during = nil
		r.boxes.mu.Unlock()
		old := r.tip(mainRef)
		files := notes(start, n)
		oid, q := r.commit(files, old)
		err := r.gate.Receive(r.Context(), &Push{Lake: r.lake, Who: Identity{Name: "eve"}, Objects: q, Progress: io.Discard, Updates: []refs.Update{{Name: mainRef, Old: old, New: oid}}})[0].Err
		r.must(errors.Join(err, q.Discard()))
		r.boxes.mu.Lock()
		r.boxes.during = during
		r.boxes.mu.Unlock()
	}
	// Its model reads what eve changes, so that it runs anew each time.
	proposal, err := r.proposeOn(with(start, "models/one.sql", "SELECT 1 FROM src"), from, "no-cache")
	r.must(err)
	if moved != 3 {
		t.Fatalf("main moved %d times", moved)
	}
	now := r.tip(mainRef)
	if yes, err := history.IsAncestor(r.Context(), r.lake.Objects, proposal, now); err != nil || !yes {
		t.Errorf("main does not contain the proposal: %v", err)
	}
	for n := 1; n <= 3; n++ {
		if got := r.read(now, fmt.Sprintf("notes/%d", n)); got != "eve" {
			t.Errorf("notes/%d is %q", n, got)
		}
	}
	if got := r.read(now, "models/one.sql"); got != "SELECT 1 FROM src" {
		t.Errorf("models/one.sql is %q", got)
	}
	r.boxes.took(protocol.OpModel)
	if strings.Contains(r.out.String(), "REFUSED") || !strings.Contains(r.out.String(), "merged with it and judged again") {
		t.Errorf("the pusher was told\n%s", r.out.String())
	}
}

// notes is start with eve's notes up to n.
func notes(start map[string]string, n int) map[string]string {
	files := start
	for i := 1; i <= n; i++ {
		files = with(files, fmt.Sprintf("notes/%d", i), "eve")
	}
	return files
}

// A merge is held against grants like any push: who may propose, and what of the
// merged state differs from the tip. What the tip changed meanwhile is not the pusher's.
func TestMergedProposalsAreHeldAgainstGrants(t *testing.T) {
	r, start := governed(t, "README.md", text())
	from := r.tip(mainRef)
	r.must(r.as(ada, mainRef, with(start, "README.md", text("two", "TWO")), from))
	tip := r.tip(mainRef)
	if err := r.as(eve, forMain, with(start, "models/one.sql", "SELECT 1 FROM src"), from); err == nil || !strings.Contains(err.Error(), "eve may not propose to main") {
		t.Errorf("eve proposes: %v", err)
	}
	if err := r.as(bot, forMain, with(start, "README.md", text("five", "FIVE")), from); err == nil || !strings.Contains(err.Error(), "bot may not change README.md") {
		t.Errorf("bot changes README.md: %v", err)
	}
	if r.tip(mainRef) != tip {
		t.Fatal("main moved")
	}
	r.must(r.as(bot, forMain, with(start, "models/one.sql", "SELECT 1 FROM src"), from))
}
