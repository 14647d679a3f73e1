package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/headgate/headgate/exec/protocol"
)

type conflictsCmd struct {
	Table   string `arg:"" optional:"" help:"Only this table's: flights, ns.flights."`
	Ours    bool   `help:"Resolve: what our side has." xor:"how"`
	Theirs  bool   `help:"Resolve: what the other side has." xor:"how"`
	Base    bool   `help:"Resolve: what both sides had." xor:"how"`
	SQL     string `help:"Resolve: the value of this expression, over base, ours, theirs and the key's columns." xor:"how" placeholder:"EXPR" name:"sql"`
	Column  string `help:"Resolve this column's only." placeholder:"NAME"`
	Where   string `help:"Resolve those of rows only for which this holds, over the key's columns." placeholder:"SQL"`
	Reset   bool   `help:"Forget how conflicts were resolved so far." xor:"how"`
	JSON    bool   `help:"Print one JSON object a line." name:"json"`
	MaxRows int64  `help:"Print at most this many of a table; 0 prints all." default:"0" placeholder:"N"`
	Lake    string `help:"The checkout's directory." default:"." type:"existingdir" placeholder:"DIR"`
	workerFlag
}

// Help is shown below the command's flags.
func (conflictsCmd) Help() string {
	return `Examples:
  headgate conflicts
  headgate conflicts flights --json
  headgate conflicts flights --column delay --sql 'greatest(ours, theirs)'
  headgate conflicts flights --where "origin = 'OSL'" --theirs
  headgate conflicts flights --ours

Lists what both sides of a git merge, rebase, cherry-pick or stash changed in tables,
each in its own way. Conflicts are resolved step by step: the first rule that fits one
counts. When none is left, the table is merged, and added to the index with its
parts; then go on with git commit, or git rebase --continue.

A row that one side deleted and the other one changed is resolved by --ours or
--theirs without --column.`
}

// Run lists conflicts, or resolves them.
func (c *conflictsCmd) Run(ctx context.Context, std streams) error {
	lake, err := findCheckout(c.Lake)
	if err != nil {
		return err
	}
	rule, resolving := c.rule()
	if !resolving && (c.Column != "" || c.Where != "") {
		return usagef("say how: --ours, --theirs, --base or --sql EXPR")
	}
	all, err := lake.unmergedTables(ctx)
	if err != nil {
		return err
	}
	var list []*unmergedTable
	for _, u := range all {
		if c.Table == "" || strings.EqualFold(c.Table, u.name) {
			list = append(list, u)
		}
	}
	switch {
	case c.Table != "" && len(list) == 0:
		return fmt.Errorf("table %q is not being merged; there are: %s", c.Table, orNone(unmergedNames(all)))
	case (resolving || c.Reset) && len(list) > 1 && (c.SQL != "" || c.Column != "" || c.Where != ""):
		return usagef("name the table; there are conflicts in: %s", orNone(unmergedNames(all)))
	case len(list) == 0 && !c.JSON:
		_, err := fmt.Fprintln(std.out, "no table is being merged")
		return err
	}
	for _, u := range list {
		if err := c.table(ctx, std, lake, u, rule, resolving); err != nil {
			return fmt.Errorf("%s: %w", u.name, err)
		}
	}
	return nil
}

func unmergedNames(list []*unmergedTable) []string {
	out := make([]string, len(list))
	for i, u := range list {
		out[i] = u.name
	}
	return out
}

func (c *conflictsCmd) rule() (protocol.MergeRule, bool) {
	r := protocol.MergeRule{Column: c.Column, Where: c.Where, SQL: c.SQL}
	switch {
	case c.Ours:
		r.Take = "ours"
	case c.Theirs:
		r.Take = "theirs"
	case c.Base:
		r.Take = "base"
	}
	return r, r.Take != "" || r.SQL != ""
}

// table lists or resolves the conflicts of one table.
func (c *conflictsCmd) table(ctx context.Context, std streams, lake *checkout, u *unmergedTable, rule protocol.MergeRule, resolving bool) error {
	if c.Reset {
		return lake.writeRules(ctx, u, nil)
	}
	m, err := lake.mergeOfUnmerged(ctx, u)
	if err != nil {
		return err
	}
	if resolving {
		m.rules = append(m.rules, rule)
	}
	stage, err := os.MkdirTemp(lake.root, ".headgate-merge-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(stage)
	out, err := m.run(ctx, c.workerFlag, stage)
	if err != nil {
		return err
	}
	if !resolving {
		if out.Conflicts > 0 {
			return c.list(ctx, std, m, out)
		}
		if c.JSON {
			return nil
		}
		_, err := fmt.Fprintf(std.out, "%s: no conflicts; finish with: headgate merge --finish\n", u.name)
		return err
	}
	if out.Conflicts > 0 {
		// Only now: a rule that cannot be carried out must not be in the way of the next.
		if err := lake.writeRules(ctx, u, m.rules); err != nil {
			return err
		}
		_, err := fmt.Fprintf(std.out, "%s: %s resolved, %s left\n", u.name, thousands(out.Resolved), plural(out.Conflicts, "conflict"))
		return err
	}
	if err := lake.settle(ctx, u, m, out, stage); err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.out, "%s: %s resolved, merged into %s and added; go on with git commit, or git rebase --continue\n",
		u.name, plural(out.Resolved, "conflict"), plural(out.snap.Rows(), "row"))
	return err
}

// list prints a table's conflicts.
func (c *conflictsCmd) list(ctx context.Context, std streams, m *tableMerge, out *tableMerged) error {
	sql, format := "SELECT * FROM conflicts", "table"
	if c.JSON {
		sql, format = "SELECT '"+strings.ReplaceAll(m.name, "'", "''")+"' AS \"table\", * FROM conflicts", "json"
	} else if _, err := fmt.Fprintf(std.out, "%s: %s\n", m.name, plural(out.Conflicts, "conflict")); err != nil {
		return err
	}
	order := &protocol.Order{Op: protocol.OpQuery, SQL: sql, Format: format, MaxRows: c.MaxRows, Inputs: []protocol.Table{out.conflicts}}
	_, err := c.runWorker(ctx, order, func(_ string, _ int64, r io.Reader) error {
		_, err := io.Copy(std.out, r)
		return err
	}, nil)
	return err
}

type mergeCmd struct {
	Rev    string `arg:"" optional:"" help:"What to merge into HEAD: a branch, a tag, an oid."`
	DryRun bool   `help:"Tell what would come of it, and change nothing."`
	Finish bool   `help:"Finish the tables of a git merge, rebase, cherry-pick or stash that git stopped at: add those that have no conflicts to the index, with their parts." xor:"what"`
	Tidy   bool   `hidden:"" help:"What the pre-commit hook calls: complete the tables of the index." xor:"what"`
	JSON   bool   `help:"Print one JSON object." name:"json"`
	Lake   string `help:"The checkout's directory." default:"." type:"existingdir" placeholder:"DIR"`
	workerFlag
}

// Help is shown below the command's flags.
func (mergeCmd) Help() string {
	return `Examples:
  headgate merge --dry-run origin/main
  headgate merge origin/main
  git rebase origin/main; headgate merge --finish && git rebase --continue

As git merge, with tables merged by rows and cells, and committed if there are no
conflicts. Plain git merge does the same in a repository that headgate init has set
up, but stops before it commits where rows were merged: finish it with --finish.
Conflicts are listed and resolved by headgate conflicts.

Exit codes: 0 merged, or (--dry-run) can be; 1 there are conflicts, or it failed.`
}

// merging is what --json prints.
type merging struct {
	Tables []finished `json:"tables"`
	Files  []string   `json:"files"` // in conflict
	Commit string     `json:"commit,omitempty"`
}

var errConflicts = errors.New("there are conflicts; list and resolve them with headgate conflicts (tables) and git status (files), or give up with git merge --abort")

// Run merges, finishes, or tells.
func (c *mergeCmd) Run(ctx context.Context, std streams) error {
	lake, err := findCheckout(c.Lake)
	if err != nil {
		return err
	}
	switch {
	case c.Tidy:
		tidied, err := lake.tidy(ctx)
		for _, dir := range tidied {
			fmt.Fprintf(std.err, "headgate: completed %s\n", dir)
		}
		return err
	case c.Finish:
		if c.Rev != "" || c.DryRun {
			return usagef("--finish goes by itself")
		}
		return c.finish(ctx, std, lake)
	case c.Rev == "":
		return usagef("name what to merge")
	case c.DryRun:
		return c.dryRun(ctx, std, lake)
	}
	return c.merge(ctx, std, lake)
}

// finish settles what can be, and says what is left.
func (c *mergeCmd) finish(ctx context.Context, std streams, lake *checkout) error {
	done, err := lake.finishTables(ctx, c.workerFlag)
	if err != nil {
		return err
	}
	files, err := lake.unmergedFiles(ctx)
	if err != nil {
		return err
	}
	if _, err := lake.tidy(ctx); err != nil {
		return err
	}
	if err := c.report(std, merging{Tables: done, Files: files}); err != nil {
		return err
	}
	if left(done) || len(files) > 0 {
		return errConflicts
	}
	return nil
}

// left reports whether a table is still not merged.
func left(tables []finished) bool {
	for _, f := range tables {
		if f.Conflicts > 0 || f.Problem != "" {
			return true
		}
	}
	return false
}

func (c *mergeCmd) report(std streams, m merging) error {
	if c.JSON {
		if m.Files == nil {
			m.Files = []string{}
		}
		return printJSON(std.out, m)
	}
	for _, f := range m.Tables {
		switch {
		case f.Problem != "":
			fmt.Fprintf(std.out, "table %s: %s\n", f.Table, visible(f.Problem))
		case f.Conflicts > 0:
			fmt.Fprintf(std.out, "table %s: %s\n", f.Table, plural(f.Conflicts, "conflict"))
		case f.Derived:
			fmt.Fprintf(std.out, "table %s: made by a model, so the gate makes it anew; ours stays until then\n", f.Table)
		default:
			fmt.Fprintf(std.out, "table %s: merged into %s\n", f.Table, plural(f.Rows, "row"))
		}
	}
	for _, f := range m.Files {
		fmt.Fprintf(std.out, "file %s: conflict\n", visible(f))
	}
	if m.Commit != "" {
		fmt.Fprintf(std.out, "Merged as %s.\n", m.Commit[:10])
	}
	return nil
}

// unmergedFiles lists the paths in conflict that are no table's.
func (c *checkout) unmergedFiles(ctx context.Context) ([]string, error) {
	list, err := c.gitOutput(ctx, "diff", "--name-only", "--diff-filter=U", "-z")
	if err != nil {
		return nil, err
	}
	return withoutTables(strings.Split(list, "\x00")), nil
}
