package hooks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/headgate/headgate/exec"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/table"
	"github.com/headgate/headgate/objects/tree"
	"github.com/headgate/headgate/objects/treemerge"
)

// conflictsNamespace is where a scratch state holds the conflicts of a merge, as
// tables. A state with one is not published: it would be published unresolved.
const conflictsNamespace = "conflicts."

// MergeRecord tells how a proposal was merged with the tip.
type MergeRecord struct {
	Base      string             `json:"base"`            // what both came of
	Files     []string           `json:"files,omitempty"` // of which lines of both were taken
	Tables    []TableMergeRecord `json:"tables,omitempty"`
	Conflicts []FileConflict     `json:"conflicts,omitempty"` // of files
}

// TableMergeRecord is a table that both the tip and the proposal changed.
type TableMergeRecord struct {
	Name      string `json:"name"`
	Snapshot  string `json:"snapshot,omitempty"` // that it was merged into
	Rows      int64  `json:"rows"`
	Conflicts int64  `json:"conflicts"`
	Listing   string `json:"listing,omitempty"` // table of the conflicts in the scratch state
}

// FileConflict is a file that both the tip and the proposal changed.
type FileConflict struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

// tableUnits are directories of tables, whose table.json and parts are merged by rows.
type tableUnits struct{}

// IsUnit implements treemerge.Units.
func (u tableUnits) IsUnit(path string, names []string) bool {
	_, ok := table.NameOf(path + "/" + table.FileName)
	return ok && slices.ContainsFunc(names, u.IsOwn)
}

// IsOwn implements treemerge.Units.
func (tableUnits) IsOwn(name string) bool {
	return name == table.FileName || strings.HasSuffix(name, ".parquet")
}

// mergeFiles makes the state to judge of the proposal and the tip: files are
// merged, tables that both changed are the tip's until mergeTables.
func (r *run) mergeFiles(ctx context.Context) error {
	from, err := readCommit(ctx, r.q, r.mergeBase)
	if err != nil {
		return err
	}
	proposed := r.tree
	res, err := treemerge.Merge(ctx, r.q, from.Tree, r.baseTree, proposed, tableUnits{})
	if err != nil {
		return fmt.Errorf("merge with the tip: %w", err)
	}
	r.tree, r.units = res.Tree, res.Units
	r.rec.Merge = &MergeRecord{Base: r.mergeBase.String(), Files: res.Merged}
	branch := strings.TrimPrefix(string(r.target), headsPrefix)
	r.say.line("merge", "", "with %s over %s: %d file(s) by lines, %d table(s) changed on both sides", branch, short(r.mergeBase), len(res.Merged), len(res.Units))
	if len(res.Conflicts) == 0 {
		return nil
	}
	reasons := make([]string, len(res.Conflicts))
	for i, c := range res.Conflicts {
		r.rec.Merge.Conflicts = append(r.rec.Merge.Conflicts, FileConflict(c))
		reasons[i] = fmt.Sprintf("conflict with %s in %s: %s", branch, c.Path, c.Reason)
	}
	reasons[len(reasons)-1] += mergeYourself(branch)
	return r.reject(reasons...)
}

func mergeYourself(branch string) string {
	return fmt.Sprintf(" (merge it yourself: git fetch && git merge origin/%s, resolve, then push again)", branch)
}

// mergeTables merges the source tables that both sides changed. Derived ones are
// computed anew from what they are made of, so the tip's stay where they are.
func (r *run) mergeTables(ctx context.Context) error {
	derived := make(map[string]bool, len(r.plan.Models))
	for _, m := range r.plan.Models {
		derived[m.Name] = true
	}
	branch := strings.TrimPrefix(string(r.target), headsPrefix)
	edits := make(map[string]tree.Edit)
	var reasons []string
	listings := make(map[string]bool)
	for _, u := range r.units {
		name, ok := table.NameOf(u.Path + "/" + table.FileName)
		if !ok || derived[name] {
			continue
		}
		m, err := r.mergeTable(ctx, name, u)
		var f *exec.Failure
		if errors.As(err, &f) {
			reasons = append(reasons, fmt.Sprintf("table %s could not be merged with %s: %s", name, branch, f.Text))
			continue
		}
		if err != nil {
			return fmt.Errorf("merge table %s: %w", name, err)
		}
		rec := TableMergeRecord{Name: name, Conflicts: m.Conflicts}
		if m.Conflicts == 0 {
			rec.Snapshot, rec.Rows = m.Table.Tree.String(), m.Table.Rows()
			edits[u.Path] = tree.Edit{Mode: gitobj.ModeTree, OID: m.Table.Tree}
			r.say.line("merge", name, "%s rows", count(m.Table.Rows()))
		} else {
			rec.Listing = listingName(name, listings)
			dir, err := table.Dir(rec.Listing)
			if err != nil {
				return err
			}
			edits[dir] = tree.Edit{Mode: gitobj.ModeTree, OID: m.Table.Tree}
			r.say.line("merge", name, "%s conflict(s), such as", count(m.Conflicts))
			r.say.sample(m.Columns, m.Sample)
			reasons = append(reasons, fmt.Sprintf("table %s: %s conflict(s) with %s, see SELECT * FROM %s of the scratch state", name, count(m.Conflicts), branch, rec.Listing))
		}
		r.rec.Merge.Tables = append(r.rec.Merge.Tables, rec)
	}
	if err := r.edit(ctx, edits); err != nil {
		return err
	}
	if len(reasons) > 0 {
		reasons[len(reasons)-1] += mergeYourself(branch)
		return r.reject(reasons...)
	}
	return nil
}

// listingName names the table of a table's conflicts. A name of two segments has
// no room for a third.
func listingName(name string, taken map[string]bool) string {
	plain := conflictsNamespace + strings.ReplaceAll(name, ".", "-")
	listing := plain
	for n := 2; taken[strings.ToLower(listing)]; n++ {
		listing = fmt.Sprintf("%s-%d", plain, n)
	}
	taken[strings.ToLower(listing)] = true
	return listing
}

// mergeTable merges one table in a sandbox. A version that has no table.json yet
// is given one first.
func (r *run) mergeTable(ctx context.Context, name string, u treemerge.Unit) (*exec.Merge, error) {
	load := func(dir objects.OID) (*exec.Table, error) {
		if dir.IsZero() {
			return nil, nil
		}
		t, err := table.Load(ctx, r.q, dir)
		var bad *table.Error
		if errors.As(err, &bad) {
			return nil, &exec.Failure{Kind: "error", Text: bad.Error()}
		}
		if err != nil {
			return nil, err
		}
		switch {
		case t.Snapshot == nil && len(t.Parquet) == 0:
			return nil, nil
		case t.Snapshot == nil:
			adopted, _, err := r.sess.Source(ctx, dir, r.next.Tables[name].Key)
			return adopted, err
		}
		loaded, err := exec.LoadTable(ctx, r.q, dir)
		if err != nil {
			return nil, &exec.Failure{Kind: "error", Text: err.Error()}
		}
		return loaded, nil
	}
	var v exec.Versions
	var err error
	for _, side := range []struct {
		dir objects.OID
		to  **exec.Table
		who string
	}{{u.Base, &v.Base, "what both came of"}, {u.Ours, &v.Ours, "the tip"}, {u.Theirs, &v.Theirs, "the proposal"}} {
		if *side.to, err = load(side.dir); err != nil {
			var f *exec.Failure
			if errors.As(err, &f) {
				f.Text = side.who + ": " + f.Text
			}
			return nil, err
		}
	}
	switch {
	case v.Ours == nil:
		return nil, &exec.Failure{Kind: "error", Text: "it was deleted there, and changed in the proposal"}
	case v.Theirs == nil:
		return nil, &exec.Failure{Kind: "error", Text: "it was changed there, and deleted in the proposal"}
	}
	// What else is in the directory was merged like other files.
	dir, err := tree.Lookup(ctx, r.q, r.tree, u.Path)
	if err != nil {
		return nil, err
	}
	entries, err := tree.List(ctx, r.q, dir.OID)
	if err != nil {
		return nil, err
	}
	keep := slices.DeleteFunc(entries, func(e gitobj.Entry) bool { return tableUnits{}.IsOwn(e.Name) })
	return r.sess.Merge(ctx, v, keep)
}
