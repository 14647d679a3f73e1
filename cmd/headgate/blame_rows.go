package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/objects"
	"github.com/headgate/headgate/objects/gitobj"
	"github.com/headgate/headgate/objects/table"
	"github.com/headgate/headgate/objects/table/blame"
)

// keyValue is a column and the value that a row is found by.
type keyValue struct{ column, value string }

// rowHistory is the history of one row of a table, for blame. Commits that have the
// same snapshot are read once; so are snapshots that have the same parts where the
// key can be, which most do of a table that is changed elsewhere.
type rowHistory struct {
	lake   *checkout
	worker workerFlag
	dir    string // tables/flights
	key    []keyValue
	tmp    string
	repoReader

	trees    map[objects.OID]string     // commit -> snapshot, "" if it has none
	versions map[string]*rowVersion     // by snapshot
	rows     map[string]*blame.Row      // by rowVersion.print
	outside  map[string]map[string]bool // schema -> part -> the key is not in it
	read     map[string]bool            // parts that were opened, by oid
}

// rowVersion is a snapshot, as far as the row goes.
type rowVersion struct {
	columns []table.Column
	parts   []string // oids of those where the key can be, in order
	print   string   // what the row depends on; "" if it cannot be there
	unsound error    // why the files are no table; then no row is there
}

func newRowHistory(ctx context.Context, lake *checkout, w workerFlag, dir string, key []keyValue, tmp string) (*rowHistory, error) {
	h := &rowHistory{
		lake: lake, worker: w, dir: dir, key: key, tmp: tmp,
		trees: make(map[objects.OID]string), versions: make(map[string]*rowVersion), rows: make(map[string]*blame.Row),
		outside: make(map[string]map[string]bool), read: make(map[string]bool),
	}
	var err error
	if h.repoReader, err = lake.reader(ctx); err != nil {
		return nil, err
	}
	return h, nil
}

// Line implements blame.History: git finds the commits that changed the table, by
// the oids of trees and, if the repository has a commit-graph with changed paths, by that.
func (h *rowHistory) Line(ctx context.Context, tip objects.OID) (blame.Line, error) {
	l := &changeLine{cmd: exec.CommandContext(ctx, "git", "-C", h.lake.root, "log", "--first-parent", "--format=%H %P", tip.String(), "--", ":(top,literal)"+h.dir)}
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	l.cmd.Stderr = &l.stderr
	l.out = bufio.NewScanner(out)
	return l, l.cmd.Start()
}

type changeLine struct {
	cmd    *exec.Cmd
	out    *bufio.Scanner
	stderr tail
	ended  bool
}

// Next implements blame.Line.
func (l *changeLine) Next() (blame.Change, bool, error) {
	if l.ended {
		return blame.Change{}, false, nil
	}
	if !l.out.Scan() {
		l.ended = true
		if err := errors.Join(l.out.Err(), l.cmd.Wait()); err != nil {
			return blame.Change{}, false, fmt.Errorf("git log: %w: %s", err, firstLine(l.stderr.text()))
		}
		return blame.Change{}, false, nil
	}
	var c blame.Change
	for i, text := range strings.Fields(l.out.Text()) {
		oid, err := objects.ParseOID(text)
		if err != nil {
			return c, false, fmt.Errorf("git log answered %q: %w", l.out.Text(), err)
		}
		if i == 0 {
			c.Commit = oid
		} else {
			c.Parents = append(c.Parents, oid)
		}
	}
	return c, true, nil
}

// Close implements blame.Line.
func (l *changeLine) Close() error {
	if !l.ended {
		l.ended = true
		_ = l.cmd.Process.Kill() // the rest of the history is not wanted
		_ = l.cmd.Wait()
	}
	return nil
}

// Rows implements blame.History.
func (h *rowHistory) Rows(ctx context.Context, commits []objects.OID) ([]*blame.Row, error) {
	if err := h.load(ctx, commits); err != nil {
		return nil, err
	}
	var ask []*rowVersion
	for _, c := range commits {
		v := h.versions[h.trees[c]]
		if v == nil || v.print == "" {
			continue
		}
		if _, ok := h.rows[v.print]; !ok {
			h.rows[v.print] = nil
			ask = append(ask, v)
		}
	}
	if err := h.ask(ctx, ask); err != nil {
		return nil, err
	}
	rows := make([]*blame.Row, len(commits))
	for i, c := range commits {
		if v := h.versions[h.trees[c]]; v != nil && v.print != "" {
			rows[i] = h.rows[v.print]
		}
	}
	return rows, nil
}

// load finds the snapshots of commits, and reads those that are new. A partial
// clone is asked once for all their table.json.
func (h *rowHistory) load(ctx context.Context, commits []objects.OID) error {
	listed := make(map[string][]gitobj.Entry)
	var metas []string
	for _, c := range commits {
		if _, ok := h.trees[c]; ok {
			continue
		}
		tree, kind, _, err := h.names.find(c.String() + ":" + h.dir)
		if errors.Is(err, errNoObject) || err == nil && kind != "tree" {
			tree, err = "", nil
		}
		if err != nil {
			return err
		}
		h.trees[c] = tree
		if tree == "" || h.versions[tree] != nil || listed[tree] != nil {
			continue
		}
		data, err := h.git.read(tree, gitobj.MaxBytes)
		if err != nil {
			return err
		}
		entries, err := gitobj.ParseTree(data)
		if err != nil {
			return fmt.Errorf("tree %s: %w", tree, err)
		}
		listed[tree] = entries
		for _, e := range entries {
			if e.Name == table.FileName {
				metas = append(metas, e.OID.String())
			}
		}
	}
	if len(listed) == 0 {
		return nil
	}
	if err := h.lake.prefetch(ctx, slices.Collect(maps.Keys(listed)), metas); err != nil {
		return err
	}
	for tree, entries := range listed {
		v, err := h.version(ctx, entries)
		if err != nil {
			return err
		}
		h.versions[tree] = v
	}
	return nil
}

// version reads a snapshot's table.json and keeps the parts where the key can be.
func (h *rowHistory) version(ctx context.Context, entries []gitobj.Entry) (*rowVersion, error) {
	oids := make(map[string]string)
	meta := ""
	for _, e := range entries {
		oids[e.Name] = e.OID.String()
		if e.Name == table.FileName {
			meta = e.OID.String()
		}
	}
	v := &rowVersion{}
	if meta == "" {
		return v, h.describe(ctx, v, oids)
	}
	data, err := h.git.read(meta, table.MaxBytes)
	if err != nil {
		return nil, err
	}
	// Proposals, other than what a gate made of them, may hold anything.
	snap, err := table.ParseOutline(data)
	if err != nil {
		v.unsound = err
		return v, nil
	}
	v.columns = snap.Columns
	files, err := h.candidates(snap, data)
	if err != nil {
		v.unsound = err
		return v, nil
	}
	for _, f := range files {
		oid, ok := oids[f]
		if !ok {
			v.unsound = fmt.Errorf("%s names the part %q, which is not there", table.FileName, f)
			return v, nil
		}
		v.parts = append(v.parts, oid)
	}
	if len(v.parts) > 0 && h.columnsOf(v) != nil {
		v.print = schemaOf(v.columns) + "\n" + strings.Join(v.parts, " ")
	}
	return v, nil
}

// describe is for Parquet files without a table.json, as a proposal may have them.
func (h *rowHistory) describe(ctx context.Context, v *rowVersion, oids map[string]string) error {
	var names []string
	for name := range oids {
		if strings.HasSuffix(name, ".parquet") {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	for _, name := range names {
		v.parts = append(v.parts, oids[name])
	}
	if len(v.parts) == 0 {
		return nil
	}
	if err := h.bring(ctx, v.parts); err != nil {
		return err
	}
	order := &protocol.Order{Op: protocol.OpDescribe, Inputs: []protocol.Table{{Name: "t", Files: h.paths(v.parts)}}}
	answer, err := h.worker.runWorker(ctx, order, nil, nil)
	var u *protocol.UserError
	if errors.As(err, &u) {
		v.unsound = u
		return nil
	}
	if err != nil {
		return err
	}
	for _, c := range answer.Snapshot.Columns {
		v.columns = append(v.columns, table.Column{Name: c.Name, Type: c.Type, Nullable: c.Nullable})
	}
	if h.columnsOf(v) != nil {
		v.print = schemaOf(v.columns) + "\n" + strings.Join(v.parts, " ")
	}
	return nil
}

// schemaOf writes a schema as a map's key.
func schemaOf(columns []table.Column) string {
	text, err := json.Marshal(columns)
	if err != nil {
		panic(err) // strings and booleans have JSON
	}
	return string(text)
}

// columnsOf returns the columns of the key as the version spells them, nil if it
// does not have them all.
func (h *rowHistory) columnsOf(v *rowVersion) []table.Column {
	var found []table.Column
	for _, k := range h.key {
		i := slices.IndexFunc(v.columns, func(c table.Column) bool { return strings.EqualFold(c.Name, k.column) })
		if i < 0 {
			return nil
		}
		found = append(found, v.columns[i])
	}
	return found
}

// candidates returns the parts whose bounds do not exclude the key. Only the lines of
// parts that were not seen before are parsed.
func (h *rowHistory) candidates(snap *table.Snapshot, data []byte) ([]string, error) {
	schema := schemaOf(snap.Columns)
	known := h.outside[schema]
	if known == nil {
		known = make(map[string]bool)
		h.outside[schema] = known
	}
	_, list, _ := bytes.Cut(data, []byte("\n\"parts\": [\n"))
	var files []string
	for _, p := range snap.Parts {
		line, rest, _ := bytes.Cut(list, []byte{'\n'})
		list = rest
		out, ok := known[p.File]
		if !ok {
			var part table.Part
			if err := json.Unmarshal(bytes.TrimSuffix(line, []byte{','}), &part); err != nil {
				return nil, fmt.Errorf("%s: part %q: %w", table.FileName, p.File, err)
			}
			out = h.excludes(snap.Columns, part)
			known[p.File] = out
		}
		if !out {
			files = append(files, p.File)
		}
	}
	return files, nil
}

// excludes reports whether a part's bounds leave no room for the key.
func (h *rowHistory) excludes(columns []table.Column, p table.Part) bool {
	for _, k := range h.key {
		i := slices.IndexFunc(columns, func(c table.Column) bool { return strings.EqualFold(c.Name, k.column) })
		if i < 0 || i >= len(p.Columns) {
			return true // no such column: the row is not there
		}
		if outsideOf(columns[i].Type, p.Columns[i], k.value) {
			return true
		}
	}
	return false
}

// bring writes parts to disk.
func (h *rowHistory) bring(ctx context.Context, oids []string) error {
	want := make(map[string]string)
	for i, path := range h.paths(oids) {
		want[oids[i]] = path
		h.read[oids[i]] = true
	}
	return h.lake.blobs(ctx, want)
}

func (h *rowHistory) paths(oids []string) []string {
	paths := make([]string, len(oids))
	for i, oid := range oids {
		paths[i] = filepath.Join(h.tmp, oid+".parquet")
	}
	return paths
}

// ask reads the row of versions in one query.
func (h *rowHistory) ask(ctx context.Context, versions []*rowVersion) error {
	if len(versions) == 0 {
		return nil
	}
	var trees, parts []string
	for tree, v := range h.versions {
		if slices.Contains(versions, v) {
			trees = append(trees, tree)
			parts = append(parts, v.parts...)
		}
	}
	if err := h.lake.prefetch(ctx, trees, parts); err != nil {
		return err
	}
	if err := h.bring(ctx, parts); err != nil {
		return err
	}
	order := &protocol.Order{Op: protocol.OpQuery, Format: "json"}
	var selects []string
	for i, v := range versions {
		name := fmt.Sprintf("v%d", i)
		in := protocol.Table{Name: name, Files: h.paths(v.parts)}
		cells := make([]string, len(v.columns))
		for j, c := range v.columns {
			in.Columns = append(in.Columns, protocol.Column{Name: c.Name, Type: c.Type, Nullable: c.Nullable})
			cells[j] = "CAST(" + quoteName(c.Name) + " AS VARCHAR)"
		}
		order.Inputs = append(order.Inputs, in)
		var where []string
		for j, c := range h.columnsOf(v) {
			// What is no value of the column's type is in no row.
			where = append(where, fmt.Sprintf("%s = TRY_CAST(%s AS %s)", quoteName(c.Name), quoteText(h.key[j].value), c.Type))
		}
		selects = append(selects, fmt.Sprintf("(SELECT %d AS version, [%s] AS cells FROM %s WHERE %s LIMIT 2)", i, strings.Join(cells, ", "), name, strings.Join(where, " AND ")))
	}
	order.SQL = strings.Join(selects, " UNION ALL ")
	var out bytes.Buffer
	_, err := h.worker.runWorker(ctx, order, func(_ string, _ int64, r io.Reader) error {
		_, err := io.Copy(&out, r)
		return err
	}, nil)
	if err != nil {
		return err
	}
	return h.keep(&out, versions)
}

// keep takes the worker's answer, one JSON object for each row.
func (h *rowHistory) keep(out io.Reader, versions []*rowVersion) error {
	dec := json.NewDecoder(out)
	for {
		var found struct {
			Version int       `json:"version"`
			Cells   []*string `json:"cells"`
		}
		err := dec.Decode(&found)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the worker's rows: %w", err)
		}
		if found.Version < 0 || found.Version >= len(versions) || len(found.Cells) != len(versions[found.Version].columns) {
			return errors.New("the worker's rows are not those that were asked for")
		}
		v := versions[found.Version]
		if h.rows[v.print] != nil {
			h.rows[v.print].Several = true
			continue
		}
		row := &blame.Row{}
		for i, c := range v.columns {
			cell := blame.Cell{Column: c.Name, Null: found.Cells[i] == nil}
			if !cell.Null {
				cell.Value = *found.Cells[i]
			}
			row.Cells = append(row.Cells, cell)
		}
		h.rows[v.print] = row
	}
}

func quoteName(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

func quoteText(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
