package engine

import (
	"context"
	"fmt"
	"strings"

	"github.com/headgate/headgate/cmd/headgate-worker/internal/rowhash"
	"github.com/headgate/headgate/exec/protocol"
)

// Tables of a merge. Rows of a version are in its table with the number of their
// segment in groupColumn, and columns by their number: c0, c1, ...
const (
	mergedTable     = `memory.main."merged rows"`
	conflictedTable = `memory.main."rows in conflict"`
	conflictsTable  = `memory.main."conflicts"`
	placesTable     = `memory.main."segments of files"`
)

// The versions, as the user knows them.
const (
	sideBase   = "base"
	sideOurs   = "ours"
	sideTheirs = "theirs"
)

func sideTable(side string) string { return `memory.main."rows of ` + side + `"` }

// merge merges the segments of the order that are not one side's alone, and cuts
// what comes of them so that the parts are those of a cut of the whole table.
func (e *execution) merge(ctx context.Context) (*protocol.Answer, error) {
	m := e.order.Merge
	if m == nil || len(m.Columns) == 0 && len(m.Conflicts) == 0 {
		return nil, dataError("there is nothing to merge")
	}
	if len(m.Conflicts) > 0 {
		return e.knownConflicts(ctx)
	}
	key, err := resolveKey(e.order.Key, m.Columns)
	if err != nil {
		return nil, err
	}
	types := make([]string, 0, len(m.Columns)+1)
	types = append(types, groupColumn+" INTEGER")
	for _, c := range m.Columns {
		types = append(types, identifier(c.Name)+" "+c.Type)
	}
	if err := e.db.exec(ctx, "CREATE TABLE "+mergedTable+" ("+strings.Join(types, ", ")+")"); err != nil {
		return nil, fileError(err)
	}
	var merged *protocol.Merged
	if len(key) > 0 {
		merged, err = e.mergeKeyed(ctx, key)
	} else {
		merged, err = e.mergeRanges(ctx)
	}
	if err != nil {
		return nil, err
	}
	if merged.Conflicts > 0 {
		return e.sendConflicts(ctx, merged)
	}
	return e.splice(ctx, key, merged)
}

// knownConflicts sends conflicts that were found without looking at rows.
func (e *execution) knownConflicts(ctx context.Context) (*protocol.Answer, error) {
	m := e.order.Merge
	key := columnsOf(e.order.Key, m)
	if err := e.createConflicts(ctx, key); err != nil {
		return nil, err
	}
	for _, c := range m.Conflicts {
		if err := e.addConflict(ctx, key, c); err != nil {
			return nil, err
		}
	}
	return e.sendConflicts(ctx, &protocol.Merged{Conflicts: int64(len(m.Conflicts))})
}

// columnsOf returns those key columns that some version has.
func columnsOf(key []string, m *protocol.Merge) []protocol.Column {
	var out []protocol.Column
	for _, k := range key {
		for _, list := range [][]protocol.Column{m.Ours, m.Theirs, m.Base} {
			if at := indexOf(list, k); at >= 0 {
				out = append(out, list[at])
				break
			}
		}
	}
	return out
}

func indexOf(columns []protocol.Column, name string) int {
	for i, c := range columns {
		if c.Name == name {
			return i
		}
	}
	return -1
}

// conflictColumns are the columns of a table of conflicts after the key's.
var conflictColumns = []string{"column", "kind", "base", "ours", "theirs"}

func (e *execution) createConflicts(ctx context.Context, key []protocol.Column) error {
	var types []string
	taken := make(map[string]bool)
	for _, k := range key {
		types = append(types, identifier(k.Name)+" "+k.Type)
		taken[strings.ToLower(k.Name)] = true
	}
	for _, c := range conflictColumns {
		for taken[c] {
			c += "_" // a column of the key has the name
		}
		types = append(types, identifier(c)+" VARCHAR")
	}
	return e.db.exec(ctx, "CREATE TABLE "+conflictsTable+" ("+strings.Join(types, ", ")+")")
}

// addConflict adds one that no key tells of.
func (e *execution) addConflict(ctx context.Context, key []protocol.Column, c protocol.MergeConflict) error {
	values := strings.Repeat("NULL, ", len(key))
	text := func(s string) string {
		if s == "" {
			return "NULL"
		}
		return literal(s)
	}
	values += strings.Join([]string{text(c.Column), text(c.Kind), text(c.Base), text(c.Ours), text(c.Theirs)}, ", ")
	return e.db.exec(ctx, "INSERT INTO "+conflictsTable+" VALUES ("+values+")")
}

func (e *execution) sendConflicts(ctx context.Context, merged *protocol.Merged) (*protocol.Answer, error) {
	columns, err := e.db.describeQuery(ctx, "SELECT * FROM "+conflictsTable)
	if err != nil {
		return nil, err
	}
	merged.Columns = columnNames(columns)
	if merged.Sample, err = e.db.sample(ctx, conflictsTable, columns); err != nil {
		return nil, err
	}
	if err := e.db.exec(ctx, "CREATE OR REPLACE TABLE "+rowsTable+" AS SELECT * FROM "+conflictsTable); err != nil {
		return nil, err
	}
	answer, err := e.sendParts(ctx, nil)
	if err != nil {
		return nil, err
	}
	answer.Merged = merged
	return answer, nil
}

// mergeRanges merges segments without a key that both sides changed: rows that both
// added to the end of the table follow each other, ours first. Anything else is a conflict.
func (e *execution) mergeRanges(ctx context.Context) (*protocol.Merged, error) {
	m := e.order.Merge
	list := identifiers(columnNames(m.Columns))
	merged := &protocol.Merged{}
	if err := e.createConflicts(ctx, nil); err != nil {
		return nil, err
	}
	for i, s := range m.Segments {
		if len(s.Keep) > 0 {
			continue
		}
		var rows [3]int64
		for j, files := range [3][]string{s.Base, s.Ours, s.Theirs} {
			if len(files) == 0 {
				continue
			}
			if err := e.db.conn.QueryRowContext(ctx, "SELECT count(*) FROM "+parquet(files...)).Scan(&rows[j]); err != nil {
				return nil, fileError(err)
			}
		}
		appends := i == len(m.Segments)-1
		for _, files := range [2][]string{s.Ours, s.Theirs} {
			if !appends {
				break
			}
			var err error
			if appends, err = e.beginsWith(ctx, files, s.Base, rows[0], list); err != nil {
				return nil, err
			}
		}
		theirs := rows[0] // rows of theirs that are in ours already
		sides := [2][]string{s.Ours, s.Theirs}
		if !appends {
			switch take := takeRange(m.Rules); take {
			case "":
				merged.Conflicts++
				said := func(n int64) string { return count(n, "row") + " here" }
				if err := e.addConflict(ctx, nil, protocol.MergeConflict{Kind: protocol.ConflictRange, Base: said(rows[0]), Ours: said(rows[1]), Theirs: said(rows[2])}); err != nil {
					return nil, err
				}
				continue
			default:
				merged.Resolved++
				theirs = 0
				sides = map[string][2][]string{sideBase: {s.Base}, sideOurs: {s.Ours}, sideTheirs: {nil, s.Theirs}}[take]
			}
		}
		for j, files := range sides {
			if len(files) == 0 {
				continue
			}
			rest := "SELECT " + list + ", row_number() OVER () AS " + groupColumn + " FROM " + parquet(files...)
			if j == 1 {
				rest = fmt.Sprintf("SELECT * FROM (%s) WHERE %s > %d", rest, groupColumn, theirs)
			}
			if err := e.db.exec(ctx, fmt.Sprintf("INSERT INTO %s SELECT %d, %s FROM (%s) ORDER BY %s", mergedTable, i, list, rest, groupColumn)); err != nil {
				return nil, fileError(err)
			}
		}
	}
	return merged, nil
}

// takeRange returns the side that rules take where no rows can be told apart.
func takeRange(rules []protocol.MergeRule) string {
	for _, r := range rules {
		if r.Column == "" && r.Where == "" && r.Take != "" {
			return r.Take
		}
	}
	return ""
}

// beginsWith reports whether files begin with the n rows of the base's.
func (e *execution) beginsWith(ctx context.Context, files, base []string, n int64, list string) (bool, error) {
	if n == 0 {
		return true, nil
	}
	if len(files) == 0 {
		return false, nil
	}
	numbered := func(files []string) string {
		return fmt.Sprintf("(SELECT row_number() OVER () AS n, %s(%s) AS hash FROM %s)", rowhash.Exact, list, parquet(files...))
	}
	var equal int64
	err := e.db.conn.QueryRowContext(ctx, "SELECT count(*) FROM "+numbered(base)+" AS b JOIN "+numbered(files)+" AS s ON b.n = s.n AND b.hash = s.hash").Scan(&equal)
	if err != nil {
		return false, fileError(err)
	}
	return equal == n, nil
}
