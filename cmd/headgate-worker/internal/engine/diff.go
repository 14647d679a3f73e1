package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/headgate/headgate/cmd/headgate-worker/internal/rowhash"
	"github.com/headgate/headgate/exec/protocol"
)

// A diff works on numbers as long as it can. Each row of the parts that differ
// becomes a digest of 16 bytes; rows that only one side has are found by their
// digests, then paired, by key or by place, as pairs of row numbers; and only the
// rows that are sent are read in full. Whatever does not fit in memory DuckDB spills,
// and rows without a key are aligned in windows (see diff_sequence.go).

// Tables of a diff, each with the positions of rows: the place of a row among those
// of its input, from 0.
const (
	oldDigests = `temp.main."old digests"` // d; the position is the rowid
	newDigests = `temp.main."new digests"`
	oldOnly    = `temp.main."old only"` // pos
	newOnly    = `temp.main."new only"`
	oldKeys    = `temp.main."old keys"` // pos, twin, k0, k1, ...
	newKeys    = `temp.main."new keys"`
	pairsTable = `temp.main."pairs"`    // old_pos, new_pos (one may be NULL), and what orders them
	shownTable = `temp.main."shown"`    // old_pos, new_pos, in order: what is sent
	oldRows    = `temp.main."old rows"` // seq, number, o0, o1, ...: of a batch
	newRows    = `temp.main."new rows"`
)

// diffSide is one of the two inputs.
type diffSide struct {
	table                          protocol.Table
	view                           string
	digests, only, keys, rowsTable string
	starts                         []int64  // position of each file's first row, and of the end
	firsts                         []int64  // number of each file's first row in its table, from 0
	digested                       []string // of a row, over the input's columns: equal where the rows are
	key                            []string // over the input's columns
}

// rowDiff is a diff under way.
type rowDiff struct {
	*execution
	old, new diffSide
	// compared is, for each new column, the pair of expressions over an old row (of
	// columns o0, o1, ...) and a new one (n0, n1, ...) that tell whether it has another value.
	compared [][2]string
}

// diff compares the order's two inputs.
func (e *execution) diff(ctx context.Context) (*protocol.Answer, error) {
	d := &rowDiff{execution: e}
	if err := d.open(ctx); err != nil {
		return nil, err
	}
	steps := []func(context.Context) error{d.digest, d.pairBySequence}
	switch {
	case len(e.order.Diff.Key) > 0:
		steps = []func(context.Context) error{d.digest, d.unlike, d.pairByKey}
	case len(d.old.table.Files) == 0 || len(d.new.table.Files) == 0:
		steps = []func(context.Context) error{d.pairNone}
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return nil, fileError(err)
		}
	}
	counts := &protocol.DiffCounts{}
	err := e.db.conn.QueryRowContext(ctx, `SELECT count(*) FILTER (WHERE new_pos IS NULL), count(*) FILTER (WHERE old_pos IS NULL),
		count(*) FILTER (WHERE old_pos IS NOT NULL AND new_pos IS NOT NULL) FROM `+pairsTable).Scan(&counts.Removed, &counts.Added, &counts.Changed)
	if err != nil {
		return nil, err
	}
	switch e.order.Format {
	case "":
	case "json", "parquet":
		var broken *outputError
		if err := d.send(ctx); errors.As(err, &broken) {
			return nil, err
		} else if err != nil {
			return nil, fileError(err)
		}
	default:
		return nil, dataError("format %q: want json or parquet", e.order.Format)
	}
	return &protocol.Answer{Diff: counts}, nil
}

// open reads the order: the sides, their files' rows, and how columns correspond.
func (d *rowDiff) open(ctx context.Context) error {
	order := d.order
	if order.Diff == nil || len(order.Inputs) != 2 || order.Inputs[0].Name != protocol.DiffOld || order.Inputs[1].Name != protocol.DiffNew {
		return dataError("want two inputs, %q and %q, and how to compare them", protocol.DiffOld, protocol.DiffNew)
	}
	d.old = diffSide{
		table: order.Inputs[0], view: "memory.main." + identifier(protocol.DiffOld), digests: oldDigests, only: oldOnly, keys: oldKeys,
		rowsTable: oldRows,
	}
	d.new = diffSide{
		table: order.Inputs[1], view: "memory.main." + identifier(protocol.DiffNew), digests: newDigests, only: newOnly, keys: newKeys,
		rowsTable: newRows,
	}
	var oldParts, newParts []protocol.DiffParts
	for _, r := range order.Diff.Ranges {
		oldParts, newParts = append(oldParts, r.Old), append(newParts, r.New)
	}
	if err := d.place(ctx, &d.old, oldParts); err != nil {
		return err
	}
	if err := d.place(ctx, &d.new, newParts); err != nil {
		return err
	}
	return d.columns(ctx)
}

// place counts the rows of a side's files, and says where each begins.
func (d *rowDiff) place(ctx context.Context, side *diffSide, parts []protocol.DiffParts) error {
	rows := make(map[string]int64)
	if files := side.table.Files; len(files) > 0 {
		found, err := d.db.conn.QueryContext(ctx, "SELECT file_name, num_rows FROM parquet_file_metadata("+literalList(files)+")")
		if err != nil {
			return fileError(err)
		}
		defer found.Close()
		for found.Next() {
			var name string
			var n int64
			if err := found.Scan(&name, &n); err != nil {
				return err
			}
			rows[name] = n
		}
		if err := found.Err(); err != nil {
			return fileError(err)
		}
	}
	side.starts = []int64{0}
	for _, f := range side.table.Files {
		side.starts = append(side.starts, side.starts[len(side.starts)-1]+rows[f])
	}
	file := 0
	for _, p := range parts {
		if p.Parts < 0 || file+p.Parts > len(side.table.Files) {
			return dataError("ranges of more parts than there are files")
		}
		row := p.First
		for range p.Parts {
			side.firsts = append(side.firsts, row)
			row += rows[side.table.Files[file]]
			file++
		}
	}
	if file != len(side.table.Files) {
		return dataError("ranges of %d parts, but there are %d files", file, len(side.table.Files))
	}
	return nil
}

// columns decides which column of one side is which of the other. A column that is
// gone is left out. One that is new was NULL. One of another type has the value of the
// cast where that loses nothing.
func (d *rowDiff) columns(ctx context.Context) error {
	oldColumns, newColumns := d.old.table.Columns, d.new.table.Columns
	at := make(map[string]int, len(oldColumns))
	for i, c := range oldColumns {
		at[strings.ToLower(c.Name)] = i
	}
	var oldFlags, newFlags []string
	cast := make(map[string]string, len(newColumns)) // by lower-case name: the expression over the old input
	for i, c := range newColumns {
		mine := fmt.Sprintf("n%d", i)
		d.new.digested = append(d.new.digested, comparable(identifier(c.Name), c.Type))
		o, ok := at[strings.ToLower(c.Name)]
		if !ok {
			null := "CAST(NULL AS " + c.Type + ")"
			d.old.digested = append(d.old.digested, comparable(null, c.Type))
			d.compared = append(d.compared, [2]string{comparable(null, c.Type), comparable(mine, c.Type)})
			continue
		}
		was := oldColumns[o]
		if was.Type == c.Type {
			cast[strings.ToLower(c.Name)] = identifier(was.Name)
			d.old.digested = append(d.old.digested, comparable(identifier(was.Name), c.Type))
			d.compared = append(d.compared, [2]string{comparable(fmt.Sprintf("o%d", o), c.Type), comparable(mine, c.Type)})
			continue
		}
		value, exact := d.castTo(ctx, identifier(was.Name), was.Type, c.Type)
		cast[strings.ToLower(c.Name)] = value
		d.old.digested = append(d.old.digested, comparable(value, c.Type))
		oldFlags, newFlags = append(oldFlags, exact), append(newFlags, "true")
		value, exact = d.castTo(ctx, fmt.Sprintf("o%d", o), was.Type, c.Type)
		d.compared = append(d.compared, [2]string{comparable(value, c.Type) + ", " + exact, comparable(mine, c.Type) + ", true"})
	}
	d.old.digested, d.new.digested = append(d.old.digested, oldFlags...), append(d.new.digested, newFlags...)
	for _, k := range d.order.Diff.Key {
		expr, ok := cast[strings.ToLower(k)]
		if !ok {
			return dataError("key column %q is not on both sides", k)
		}
		d.old.key = append(d.old.key, expr)
		d.new.key = append(d.new.key, identifier(k))
	}
	return nil
}

// castTo returns a value of one type as another, NULL if it has none there, and
// whether the way back leads to the same value: 1.5 is not 2, and '01' is not 1.
func (d *rowDiff) castTo(ctx context.Context, value, from, to string) (cast, exact string) {
	there := func(v string) string { return "TRY_CAST(" + v + " AS " + to + ")" }
	back := func(v string) string { return "TRY_CAST(" + v + " AS " + from + ")" }
	// Some casts do not exist, even for NULL; only trying tells.
	probe := "SELECT " + back(there("v")) + " FROM (SELECT CAST(NULL AS " + from + ") AS v FROM range(1))"
	if err := d.db.exec(ctx, probe); err != nil {
		return "CAST(NULL AS " + to + ")", "(" + value + " IS NULL)"
	}
	return there(value), fmt.Sprintf("(%s(%s) = %s(%s))", rowhash.Digest, comparable(value, from), rowhash.Digest, comparable(back(there(value)), from))
}

// comparable returns a value as rowhash takes it: of types that it does not know, the text.
func comparable(value, kind string) string {
	for _, t := range []string{"ENUM(", "UNION(", "VARIANT", "GEOMETRY"} {
		if strings.Contains(unquotedPart(kind), t) {
			return "CAST(" + value + " AS VARCHAR)"
		}
	}
	return value
}

// digest makes the tables of digests. Rows are inserted in the input's order, so that
// their rowids are their positions.
func (d *rowDiff) digest(ctx context.Context) error {
	for _, side := range []*diffSide{&d.old, &d.new} {
		expr := rowhash.Digest + "(" + strings.Join(side.digested, ", ") + ")"
		if err := d.db.exec(ctx, "CREATE TEMP TABLE "+side.digests+" AS SELECT "+expr+" AS d FROM "+side.view); err != nil {
			return err
		}
		var rows int64
		if err := d.db.conn.QueryRowContext(ctx, "SELECT count(*) FROM "+side.digests).Scan(&rows); err != nil {
			return err
		}
		if want := side.starts[len(side.starts)-1]; rows != want {
			return dataError("the %s parts have %d rows, their footers say %d", side.table.Name, rows, want)
		}
	}
	return nil
}

// unlike finds the rows that only one side has. Of equal rows that one side has more
// of, the last ones are those that the other lacks.
func (d *rowDiff) unlike(ctx context.Context) error {
	const counts = `temp.main."digest counts"`
	err := d.db.exec(ctx, fmt.Sprintf(`CREATE TEMP TABLE %s AS
		SELECT d, sum(o)::BIGINT AS o, sum(n)::BIGINT AS n FROM (SELECT d, 1 AS o, 0 AS n FROM %s UNION ALL SELECT d, 0, 1 FROM %s) GROUP BY d HAVING sum(o) <> sum(n)`,
		counts, oldDigests, newDigests))
	if err != nil {
		return err
	}
	for _, s := range []struct {
		side         *diffSide
		mine, theirs string
	}{{&d.old, "o", "n"}, {&d.new, "n", "o"}} {
		err := d.db.exec(ctx, fmt.Sprintf(`CREATE TEMP TABLE %[1]s AS
			SELECT t.rowid AS pos FROM %[2]s t JOIN %[3]s c USING (d) WHERE c.%[4]s > c.%[5]s AND c.%[5]s = 0
			UNION ALL
			SELECT pos FROM (SELECT t.rowid AS pos, c.%[5]s AS others, row_number() OVER (PARTITION BY t.d ORDER BY t.rowid) AS n
				FROM %[2]s t JOIN %[3]s c USING (d) WHERE c.%[4]s > c.%[5]s AND c.%[5]s > 0) WHERE n > others`,
			s.side.only, s.side.digests, counts, s.mine, s.theirs))
		if err != nil {
			return err
		}
		if err := d.db.exec(ctx, "DROP TABLE "+s.side.digests); err != nil {
			return err
		}
	}
	return d.db.exec(ctx, "DROP TABLE "+counts)
}

// numbered selects list from a side's rows, with their positions as pos.
func (s *diffSide) numbered(list string) string {
	return "(SELECT row_number() OVER () - 1 AS pos, " + list + " FROM " + s.view + ")"
}

// pairByKey pairs the rows that only one side has by their keys. Nothing holds a key
// to be unique where no gate was: rows that share one are paired in their order.
func (d *rowDiff) pairByKey(ctx context.Context) error {
	n := len(d.order.Diff.Key)
	for _, side := range []*diffSide{&d.old, &d.new} {
		terms := make([]string, n)
		for i, expr := range side.key {
			terms[i] = fmt.Sprintf("%s AS k%d", expr, i)
		}
		names := numberedNames("k", n)
		err := d.db.exec(ctx, fmt.Sprintf("CREATE TEMP TABLE %s AS SELECT pos, 0::BIGINT AS twin, %s FROM %s SEMI JOIN %s USING (pos)",
			side.keys, names, side.numbered(strings.Join(terms, ", ")), side.only))
		if err != nil {
			return err
		}
		var twins bool
		if err := d.db.conn.QueryRowContext(ctx, fmt.Sprintf("SELECT EXISTS (SELECT 1 FROM %s GROUP BY %s HAVING count(*) > 1)", side.keys, names)).Scan(&twins); err != nil {
			return err
		}
		if twins {
			err := d.db.exec(ctx, fmt.Sprintf("CREATE OR REPLACE TEMP TABLE %[1]s AS SELECT pos, row_number() OVER (PARTITION BY %[2]s ORDER BY pos) - 1 AS twin, %[2]s FROM %[1]s", side.keys, names))
			if err != nil {
				return err
			}
		}
	}
	conditions := []string{"o.twin = n.twin"}
	var keys []string
	for i := range n {
		conditions = append(conditions, fmt.Sprintf("o.k%d IS NOT DISTINCT FROM n.k%d", i, i))
		keys = append(keys, fmt.Sprintf("coalesce(n.k%d, o.k%d) AS k%d", i, i, i))
	}
	return d.db.exec(ctx, fmt.Sprintf("CREATE TEMP TABLE %s AS SELECT o.pos AS old_pos, n.pos AS new_pos, %s FROM %s o FULL JOIN %s n ON %s",
		pairsTable, strings.Join(keys, ", "), oldKeys, newKeys, strings.Join(conditions, " AND ")))
}

// pairNone is for a side that has nothing: all rows of the other differ.
func (d *rowDiff) pairNone(ctx context.Context) error {
	return d.db.exec(ctx, fmt.Sprintf(`CREATE TEMP TABLE %s AS
		SELECT 0 AS seq, pos AS old_pos, NULL::BIGINT AS new_pos FROM range(%d) r(pos) UNION ALL SELECT 0, NULL, pos FROM range(%d) r(pos)`,
		pairsTable, d.old.starts[len(d.old.starts)-1], d.new.starts[len(d.new.starts)-1]))
}

// numberedNames returns "k0, k1, k2".
func numberedNames(prefix string, n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%s%d", prefix, i)
	}
	return strings.Join(names, ", ")
}
