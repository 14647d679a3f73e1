package lake

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/headgate/headgate/hooks/policy"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/history"
	"github.com/headgate/headgate/objects/table"
	"github.com/headgate/headgate/objects/tree"
	"github.com/headgate/headgate/refs"
)

const branchPrefix = "refs/heads/"

// maxPolicy is far above any real headgate.yaml.
const maxPolicy = 1 << 20

// tableCheck compares tables with their table.json.
type tableCheck struct {
	l       *Lake
	r       *Report
	commits map[objects.OID]bool // that were looked at
	trees   map[objects.OID]bool // of commits, and of tables
}

// refs checks what refs show. What a gate has passed comes first: the same table
// may lie on a branch without a gate, where a false one is only a warning. What
// cannot be read is left to the check of the objects.
func (t *tableCheck) refs(ctx context.Context, list []refs.Ref, all bool) error {
	var tips []refs.Ref
	for _, ref := range list {
		info, err := t.l.Objects.Stat(ctx, ref.OID)
		if err != nil || info.Type != objects.Commit {
			continue
		}
		tips = append(tips, ref)
		branch, ok := strings.CutPrefix(string(ref.Name), branchPrefix)
		if !ok {
			continue
		}
		err = history.FirstParent(ctx, t.l.Objects, ref.OID, func(oid objects.OID, c *gitobj.Commit) (bool, error) {
			if !t.gated(ctx, branch, c) {
				return false, nil
			}
			if !t.commits[oid] {
				t.commit(ctx, ref, oid, c, &t.r.Faults)
			}
			return all, nil
		})
		if err != nil && ctx.Err() != nil {
			return ctx.Err()
		}
	}
	walked := make(map[objects.OID]bool)
	for _, ref := range tips {
		for todo := []objects.OID{ref.OID}; len(todo) > 0; {
			if err := ctx.Err(); err != nil {
				return err
			}
			oid := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			if walked[oid] {
				continue
			}
			walked[oid] = true
			c, err := history.Commit(ctx, t.l.Objects, oid)
			if err != nil {
				continue
			}
			if !t.commits[oid] {
				t.commit(ctx, ref, oid, c, &t.r.Warnings)
			}
			if all {
				todo = append(todo, c.Parents...)
			}
		}
	}
	return nil
}

// gated tells whether a commit on a branch came through the gate, as far as can be
// seen: the policy that governed the push, its first parent's, wants one, and so does its own.
func (t *tableCheck) gated(ctx context.Context, branch string, c *gitobj.Commit) bool {
	roots := []objects.OID{c.Tree}
	if len(c.Parents) > 0 {
		parent, err := history.Commit(ctx, t.l.Objects, c.Parents[0])
		if err != nil {
			return false
		}
		roots = append(roots, parent.Tree)
	}
	for _, root := range roots {
		p := policy.Default()
		e, err := tree.Lookup(ctx, t.l.Objects, root, p.File)
		if err == nil {
			var data []byte
			if data, err = objects.ReadAll(ctx, t.l.Objects, e.OID, objects.Blob, maxPolicy); err == nil {
				p, err = policy.Parse(p.File, data)
			}
		} else if errors.Is(err, objects.ErrNotFound) {
			err = nil
		}
		if err != nil || p.GateOf(branch) != policy.Required {
			return false
		}
	}
	return true
}

// commit checks the tables of one commit.
func (t *tableCheck) commit(ctx context.Context, ref refs.Ref, oid objects.OID, c *gitobj.Commit, list *[]Fault) {
	t.commits[oid] = true
	if t.trees[c.Tree] {
		return
	}
	t.trees[c.Tree] = true
	found := func(path, detail string) {
		f := Fault{Kind: "table", Ref: string(ref.Name), Detail: path + ": " + detail}
		if oid != ref.OID {
			f.OID = oid.String()
		}
		*list = append(*list, f)
	}
	tables, err := table.Discover(ctx, t.l.Objects, c.Tree)
	var unsound *table.Error
	if errors.As(err, &unsound) {
		found(unsound.Path, unsound.Reason)
	}
	for _, one := range tables {
		if one.Snapshot == nil || t.trees[one.OID] {
			continue
		}
		t.trees[one.OID] = true
		t.r.Tables++
		if detail := t.l.untrue(ctx, &one); detail != "" {
			found(one.Name, detail)
		}
	}
}

// untrue says in what a table.json differs from the directory that it is in.
func (l *Lake) untrue(ctx context.Context, t *table.Table) string {
	have := make(map[string]objects.OID, len(t.Parquet))
	for _, e := range t.Parquet {
		have[e.Name] = e.OID
	}
	listed := make(map[string]bool, len(have))
	for _, p := range t.Snapshot.Parts {
		oid, ok := have[p.File]
		switch {
		case !ok:
			return fmt.Sprintf("part %s is listed, and is not there", p.File)
		case table.PartName(oid) != p.File:
			return fmt.Sprintf("part %s has the content of %s", p.File, table.PartName(oid))
		}
		listed[p.File] = true
		info, err := l.Objects.Stat(ctx, oid)
		if err == nil && info.Size != p.Bytes {
			return fmt.Sprintf("part %s has %d bytes, %d are listed", p.File, info.Size, p.Bytes)
		}
	}
	for _, e := range t.Parquet {
		if !listed[e.Name] {
			return fmt.Sprintf("%q is there, and is not listed", e.Name)
		}
	}
	return ""
}
