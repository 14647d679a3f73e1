package exec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/sandbox"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/table"
)

// Source checks a pushed table, reading its parts in a sandbox: a missing
// table.json is written (wrote is then true), one that is there must be true of
// the parts. key is the policy's key of the table, for a table.json that has to be written.
func (s *Session) Source(ctx context.Context, tree objects.OID, key []string) (t *Table, wrote bool, err error) {
	keyed := action{Op: "source", Code: strings.Join(key, "\x00"), Env: s.rt.env.Worker.String(), Inputs: []actionInput{{Tree: tree.String()}}}.key()
	var entry modelEntry
	if s.cached(keyed, &entry) {
		if t, err := s.loadCached(ctx, entry.Tree); err == nil {
			return t, entry.Tree != tree.String(), nil
		}
	}
	loaded, err := table.Load(ctx, s.store, tree)
	var bad *table.Error
	if errors.As(err, &bad) {
		return nil, false, &Failure{Kind: "error", Text: bad.Error()}
	}
	if err != nil {
		return nil, false, err
	}
	if len(loaded.Parquet) == 0 {
		return nil, false, &Failure{Kind: "error", Text: "has no Parquet file; add one, or make a snapshot with: headgate import FILE --table NAME"}
	}
	files, err := s.partsOf(ctx, loaded)
	if err != nil {
		return nil, false, err
	}
	found, err := s.describe(ctx, files)
	if err != nil {
		return nil, false, err
	}
	if loaded.Snapshot == nil {
		t, err = s.adopt(ctx, loaded, files, found, key)
		wrote = true
	} else {
		t, err = s.confirm(ctx, loaded, found)
	}
	if err != nil {
		return nil, false, err
	}
	s.remember(keyed, modelEntry{Tree: t.Tree.String()})
	return t, wrote, nil
}

// pushedPart is one Parquet file of a pushed table, in part order.
type pushedPart struct {
	entry gitobj.Entry
	bytes int64
}

// partsOf lists a pushed table's parts: in table.json's order, else by name.
func (s *Session) partsOf(ctx context.Context, t *table.Table) ([]pushedPart, error) {
	byName := make(map[string]gitobj.Entry, len(t.Parquet))
	for _, e := range t.Parquet {
		byName[e.Name] = e
	}
	order := make([]string, 0, len(t.Parquet))
	if t.Snapshot == nil {
		for _, e := range t.Parquet {
			order = append(order, e.Name)
		}
	} else {
		listed := make(map[string]bool)
		for _, p := range t.Snapshot.Parts {
			e, ok := byName[p.File]
			if !ok {
				return nil, &Failure{Kind: "error", Text: fmt.Sprintf("%s names %q, which is not there", table.FileName, p.File)}
			}
			if want := table.PartName(e.OID); want != e.Name {
				return nil, &Failure{Kind: "error", Text: fmt.Sprintf("%q holds other bytes than its name says (its content is %s); run headgate import again, or delete %s to have it written", e.Name, want, table.FileName)}
			}
			listed[p.File] = true
			order = append(order, p.File)
		}
		for _, e := range t.Parquet {
			if !listed[e.Name] {
				return nil, &Failure{Kind: "error", Text: fmt.Sprintf("%q is not listed in %s; add it with headgate import --append, or delete %s to have it written anew", e.Name, table.FileName, table.FileName)}
			}
		}
	}
	parts := make([]pushedPart, 0, len(order))
	for _, name := range order {
		e := byName[name]
		info, err := s.store.Stat(ctx, e.OID)
		if err != nil {
			return nil, err
		}
		parts = append(parts, pushedPart{entry: e, bytes: info.Size})
	}
	return parts, nil
}

func (s *Session) describe(ctx context.Context, parts []pushedPart) (*protocol.Snapshot, error) {
	job := s.job(sandbox.KindWorker, "", s.opt.Limits, &protocol.Order{Op: protocol.OpDescribe})
	in := protocol.Table{Name: "t"}
	names := make(map[string]string, len(parts)) // path inside -> the user's name, for messages
	for i, p := range parts {
		path := fmt.Sprintf("0/%06d.parquet", i)
		in.Files = append(in.Files, inputRoot+path)
		names[inputRoot+path] = p.entry.Name
		job.Inputs = append(job.Inputs, sandbox.Input{Path: path, Link: func(host string) error {
			return s.store.Link(ctx, p.entry.OID, host)
		}})
	}
	job.Order.Inputs = []protocol.Table{in}
	var u Usage
	answer, err := s.run(ctx, job, &u)
	if f, ok := err.(*Failure); ok {
		for inside, name := range names {
			f.Text = strings.ReplaceAll(f.Text, inside, name)
		}
	}
	if err != nil {
		return nil, err
	}
	if answer.Snapshot == nil || len(answer.Snapshot.Parts) != len(parts) {
		return nil, fmt.Errorf("worker described other parts than it was given")
	}
	return answer.Snapshot, nil
}

// adopt writes the table.json of plain Parquet files, and names the files by content.
func (s *Session) adopt(ctx context.Context, t *table.Table, parts []pushedPart, found *protocol.Snapshot, key []string) (*Table, error) {
	stored := make(map[string]storedPart, len(parts))
	for i, p := range parts {
		stored[found.Parts[i].File] = storedPart{oid: p.entry.OID, bytes: p.bytes}
	}
	entries, err := s.treeEntries(ctx, t.OID)
	if err != nil {
		return nil, err
	}
	var keep []gitobj.Entry
	for _, e := range entries {
		if !strings.HasSuffix(e.Name, ".parquet") && e.Name != table.FileName {
			keep = append(keep, e)
		}
	}
	return s.writeSnapshot(ctx, found, key, stored, keep)
}

func (s *Session) treeEntries(ctx context.Context, oid objects.OID) ([]gitobj.Entry, error) {
	data, err := objects.ReadAll(ctx, s.store, oid, objects.Tree, maxTree)
	if err != nil {
		return nil, err
	}
	return gitobj.ParseTree(data)
}

// maxTree bounds a table's directory: about 700,000 parts.
const maxTree = 32 << 20

// confirm compares a pushed table.json with what is in the parts. Column by
// column, part by part: a wrong minimum would make readers skip rows that match.
func (s *Session) confirm(ctx context.Context, t *table.Table, found *protocol.Snapshot) (*Table, error) {
	parts := make(map[string]storedPart)
	for i, p := range t.Snapshot.Parts {
		oid := objects.OID{}
		for _, e := range t.Parquet {
			if e.Name == p.File {
				oid = e.OID
			}
		}
		info, err := s.store.Stat(ctx, oid)
		if err != nil {
			return nil, err
		}
		parts[found.Parts[i].File] = storedPart{oid: oid, bytes: info.Size}
	}
	want, _, _, err := tableOf(found, t.Snapshot.Key, parts)
	if err != nil {
		return nil, err
	}
	if diff := differs(t.Snapshot, want); diff != "" {
		return nil, &Failure{Kind: "error", Text: fmt.Sprintf("%s is not true of the parts: %s; run headgate import again, or delete %s to have it written", table.FileName, diff, table.FileName)}
	}
	return LoadTable(ctx, s.store, t.OID)
}

// differs names the first thing in which have (pushed) is not want (found).
func differs(have, want *table.Snapshot) string {
	if len(have.Columns) != len(want.Columns) {
		return fmt.Sprintf("it has %d columns, the parts have %d", len(have.Columns), len(want.Columns))
	}
	for i, c := range have.Columns {
		w := want.Columns[i]
		if c.Name != w.Name || c.Type != w.Type {
			return fmt.Sprintf("column %d is %q %s, in the parts it is %q %s", i+1, c.Name, c.Type, w.Name, w.Type)
		}
		if !c.Nullable && w.Nullable {
			for _, p := range want.Parts {
				if p.Columns[i].Nulls > 0 {
					return fmt.Sprintf("column %q is not nullable, part %s has %d NULLs", c.Name, p.File, p.Columns[i].Nulls)
				}
			}
		}
	}
	for i, p := range have.Parts {
		w := want.Parts[i]
		if p.Rows != w.Rows || p.Bytes != w.Bytes {
			return fmt.Sprintf("part %s has %d rows in %d bytes, it says %d rows in %d bytes", p.File, w.Rows, w.Bytes, p.Rows, p.Bytes)
		}
		for j, st := range p.Columns {
			ws := w.Columns[j]
			if st.Nulls != ws.Nulls || !bytes.Equal(st.Min, ws.Min) || !bytes.Equal(st.Max, ws.Max) {
				return fmt.Sprintf("part %s, column %q: it says nulls %d, min %s, max %s; found nulls %d, min %s, max %s",
					p.File, have.Columns[j].Name, st.Nulls, st.Min, st.Max, ws.Nulls, ws.Min, ws.Max)
			}
		}
	}
	return ""
}

func putBytes(ctx context.Context, w objects.Writer, t objects.Type, data []byte) (objects.OID, error) {
	return w.Put(ctx, t, int64(len(data)), bytes.NewReader(data))
}
