package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/headgate/headgate/exec/protocol"
)

// Strategies that a result can be combined with a prior table by.
const (
	strategyAppend    = "APPEND"
	strategyOverwrite = "OVERWRITE_PARTITIONS"
)

// Tables that exist while a result is combined with its prior.
const (
	combinedName    = "rows to combine" // becomes rowsName
	combinedTable   = `memory.main."` + combinedName + `"`
	remainingTable  = `memory.main."rows that remain"`
	partitionsTable = `temp.main."partitions of the result"`
)

// combine makes a table of the prior and the result in rowsTable, as the order's
// strategy says, and sends what of it is new.
func (e *execution) combine(ctx context.Context, key []string) (*protocol.Answer, error) {
	prior := e.order.Prior
	if prior == nil {
		return e.sendParts(ctx, key)
	}
	result, err := e.db.describeQuery(ctx, "SELECT * FROM "+rowsTable)
	if err != nil {
		return nil, err
	}
	if err := sameSchema(prior.Columns, result, e.order.Strategy); err != nil {
		return nil, err
	}
	var terms []string // of the partitions that the result overwrites
	switch e.order.Strategy {
	case strategyAppend:
	case strategyOverwrite:
		if terms, err = partitionTerms(e.order.PartitionedBy, prior.Columns); err != nil {
			return nil, err
		}
		list := make([]string, len(terms))
		for i, t := range terms {
			list[i] = fmt.Sprintf("%s AS p%d", t, i)
		}
		if err := e.db.exec(ctx, "CREATE TEMP TABLE "+partitionsTable+" AS SELECT DISTINCT "+strings.Join(list, ", ")+" FROM "+rowsTable+" AS prior"); err != nil {
			return nil, err
		}
	default:
		return nil, dataError("the worker does not know the strategy %q", e.order.Strategy)
	}
	if len(key) > 0 {
		return e.combineKeyed(ctx, key, terms)
	}
	return e.combineParts(ctx, terms)
}

// combineKeyed puts the rows of both into the key's order, which must be unique
// over all of them. The leading parts that stay as they are are reused, so that
// the table is cut as if all of it were cut anew, but what is added at its end
// costs no more than its last part.
func (e *execution) combineKeyed(ctx context.Context, key, terms []string) (*protocol.Answer, error) {
	prior := e.order.Prior
	keep, err := e.leadingParts(ctx, key, terms)
	if err != nil {
		return nil, err
	}
	list := identifiers(columnNames(prior.Columns))
	all := "SELECT " + list + " FROM " + rowsTable
	if rest := prior.Files[len(keep):]; len(rest) > 0 {
		all += "\nUNION ALL\nSELECT " + list + " FROM " + parquet(rest...) + " AS prior WHERE NOT " + overwritten(terms)
	}
	if err := e.replaceRows(ctx, fmt.Sprintf("SELECT * FROM (%s) ORDER BY %s", all, canonicalOrder(inKeyOrder(key, prior.Columns)))); err != nil {
		return nil, err
	}
	if err := e.checkKey(ctx, key); err != nil {
		return nil, err
	}
	c := &cutter{execution: e}
	for _, p := range keep {
		c.snapshot.Parts = append(c.snapshot.Parts, protocol.Part{File: p.file})
		c.rows += p.rows
	}
	if err := c.cut(ctx, rowsTable, "*", key, len(keep) == 0); err != nil {
		return nil, err
	}
	if c.snapshot.Columns == nil {
		c.snapshot.Columns = append(c.snapshot.Columns, prior.Columns...)
	}
	for i := range c.snapshot.Columns {
		c.snapshot.Columns[i].Nullable = true // but for the key; as it is of what is cut anew
	}
	return c.answer(key), nil
}

// replaceRows puts the rows of a query in the place of rowsTable, which it may read.
func (e *execution) replaceRows(ctx context.Context, query string) error {
	for _, s := range []string{
		"CREATE TABLE " + combinedTable + " AS " + query,
		"DROP TABLE " + rowsTable,
		"ALTER TABLE " + combinedTable + " RENAME TO " + identifier(rowsName),
	} {
		if err := e.db.exec(ctx, s); err != nil {
			return fileError(err)
		}
	}
	return nil
}

// keptPart is a part of the prior that stays as it is.
type keptPart struct {
	file string
	rows int64
}

// leadingParts returns the prior's first parts that would come out of a cut of
// the whole table as they are: ending where their rows say, in the key's order,
// without a row that is overwritten, and with all keys before those of every other
// part and of the result. It reads no more columns than it must, and trusts no
// order and no cut that it did not see.
func (e *execution) leadingParts(ctx context.Context, key, terms []string) ([]keptPart, error) {
	files := e.order.Prior.Files
	if len(files) == 0 {
		return nil, nil
	}
	const fileColumn = "file of the part"
	columns, nulls := make([]string, len(key)), make([]string, len(key))
	for i, k := range key {
		columns[i], nulls[i] = "prior."+identifier(k), "prior."+identifier(k)+" IS NULL"
	}
	result := make([]string, len(key))
	for i, k := range key {
		result[i] = identifier(k)
	}
	query := fmt.Sprintf(`
WITH seen AS (
	SELECT prior.%[1]s AS file, ROW(%[2]s) AS k, %[3]s AS odd
	FROM read_parquet(%[4]s, hive_partitioning = false, filename = %[5]s) AS prior
), parts AS (
	SELECT file, count(*) AS n, min(k) AS low, max(k) AS high, bool_or(odd OR before >= k) AS odd
	FROM (SELECT *, lag(k) OVER () AS before FROM seen) GROUP BY file
), places AS (
	SELECT unnest(%[4]s) AS file, generate_subscripts(%[4]s, 1) AS place
)
SELECT coalesce(n, 0), coalesce(NOT coalesce(odd, false)
	AND coalesce(high < min(low) OVER (ORDER BY place ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING), true)
	AND coalesce(high < (SELECT min(ROW(%[6]s)) FROM %[7]s), true), false)
FROM places LEFT JOIN parts USING (file) ORDER BY place`,
		identifier(fileColumn), strings.Join(columns, ", "), strings.Join(append(nulls, overwritten(terms)), " OR "),
		literalList(files), literal(fileColumn), strings.Join(result, ", "), rowsTable)
	rows, err := e.db.conn.QueryContext(ctx, query)
	if err != nil {
		return nil, fileError(err)
	}
	defer rows.Close()
	var kept []keptPart
	for rows.Next() {
		p := keptPart{file: files[len(kept)]}
		var stays bool
		if err := rows.Scan(&p.rows, &stays); err != nil {
			return nil, err
		}
		if !stays {
			break
		}
		kept = append(kept, p)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil || len(kept) == 0 {
		return nil, err
	}
	// Where a part ends depends on the rows up to there only, so the rest need not
	// be known to tell which of these ends are right.
	leading := make([]string, len(kept))
	for i, p := range kept {
		leading[i] = p.file
	}
	c, err := e.chunks(ctx, parquet(leading...), "row_number() OVER () - 1", key, e.order.Prior.Columns)
	if err != nil {
		return nil, fileError(err)
	}
	end := int64(0)
	for i, p := range kept {
		if end += p.rows; i >= len(c.ends) || c.ends[i] != end {
			return kept[:i], nil
		}
	}
	return kept, nil
}

// combineParts leaves the prior's parts as they are, but for those that have
// rows of a partition that the result overwrites, and puts the result after them.
// What is appended goes on in the last part, which ended with the table and not
// where its rows say: so many small appends do not make many small parts.
func (e *execution) combineParts(ctx context.Context, terms []string) (*protocol.Answer, error) {
	c := &cutter{execution: e}
	c.snapshot.Columns = append(c.snapshot.Columns, e.order.Prior.Columns...)
	list := identifiers(columnNames(e.order.Prior.Columns))
	files := e.order.Prior.Files
	if e.order.Strategy == strategyAppend && len(files) > 0 {
		last := files[len(files)-1]
		files = files[:len(files)-1]
		if err := e.replaceRows(ctx, "SELECT "+list+" FROM "+parquet(last)+"\nUNION ALL\nSELECT "+list+" FROM "+rowsTable); err != nil {
			return nil, err
		}
	}
	for _, file := range files {
		var rows, gone int64
		count := "SELECT count(*), count(*) FILTER (WHERE hit) FROM (SELECT " + overwritten(terms) + " AS hit FROM " + parquet(file) + " AS prior)"
		if err := e.db.conn.QueryRowContext(ctx, count).Scan(&rows, &gone); err != nil {
			return nil, fileError(err)
		}
		switch gone {
		case 0:
			c.snapshot.Parts = append(c.snapshot.Parts, protocol.Part{File: file})
			c.rows += rows
			continue
		case rows:
			continue
		}
		// The join that leaves rows out promises no order, so the file's is kept by number.
		remain := "CREATE OR REPLACE TABLE " + remainingTable + " AS SELECT " + list + " FROM (SELECT *, row_number() OVER () AS \"row of the part\" FROM " +
			parquet(file) + ") AS prior WHERE NOT " + overwritten(terms) + ` ORDER BY prior."row of the part"`
		if err := e.db.exec(ctx, remain); err != nil {
			return nil, fileError(err)
		}
		if err := c.cut(ctx, remainingTable, "*", nil, false); err != nil {
			return nil, err
		}
	}
	// Without rows there is nothing to add to a table that has parts.
	if err := c.cut(ctx, rowsTable, list, nil, len(files) == 0); err != nil {
		return nil, err
	}
	for _, p := range c.snapshot.Parts {
		for i, st := range p.Stats {
			c.snapshot.Columns[i].Nullable = c.snapshot.Columns[i].Nullable || st.Nulls > 0
		}
	}
	return c.answer(nil), nil
}

// overwritten is the condition that a row of "prior" is in a partition of the
// result. NULL is a partition like any other.
func overwritten(terms []string) string {
	if len(terms) == 0 {
		return "false"
	}
	equal := make([]string, len(terms))
	for i, t := range terms {
		equal[i] = fmt.Sprintf("o.p%d IS NOT DISTINCT FROM %s", i, t)
	}
	return "EXISTS (SELECT 1 FROM " + partitionsTable + " AS o WHERE " + strings.Join(equal, " AND ") + ")"
}

// partitionTerms returns the SQL of partitioned_by's terms, of a row of "prior".
func partitionTerms(terms []string, columns []protocol.Column) ([]string, error) {
	if len(terms) == 0 {
		return nil, dataError("%s needs partitioned_by: which columns tell partitions apart", strategyOverwrite)
	}
	var list []string
	for _, text := range terms {
		p, err := protocol.ParsePartition(text)
		if err != nil {
			return nil, dataError("partitioned_by: %v", err)
		}
		at := -1
		for i, c := range columns {
			if strings.EqualFold(c.Name, p.Column) {
				at = i
			}
		}
		if at < 0 {
			return nil, dataError("partitioned_by: column %q is not in the result, which has %s", p.Column, nameList(columnNames(columns)))
		}
		id := "prior." + identifier(columns[at].Name)
		if p.Unit == "" {
			list = append(list, id)
			continue
		}
		if t := columns[at].Type; t != "DATE" && !strings.HasPrefix(t, "TIMESTAMP") {
			return nil, dataError("partitioned_by: %s needs a date or a timestamp, column %q is %s", text, columns[at].Name, t)
		}
		list = append(list, "date_trunc("+literal(p.Unit)+", "+id+")")
	}
	return list, nil
}

// sameSchema refuses a result that does not fit the prior: columns go by name,
// and each must be of the same type.
func sameSchema(prior, result []protocol.Column, strategy string) error {
	types := make(map[string]string, len(result))
	for _, c := range result {
		types[c.Name] = c.Type
	}
	var wrong []string
	for _, c := range prior {
		t, ok := types[c.Name]
		switch {
		case !ok:
			wrong = append(wrong, fmt.Sprintf("column %q is missing", c.Name))
		case t != c.Type:
			wrong = append(wrong, fmt.Sprintf("column %q is %s, in the table it is %s", c.Name, shorten(t, 100), shorten(c.Type, 100)))
		}
		delete(types, c.Name)
	}
	for _, c := range result {
		if _, extra := types[c.Name]; extra {
			wrong = append(wrong, fmt.Sprintf("column %q is not in the table", c.Name))
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	return dataError("the result does not fit the table that %s adds it to: %s; to change the columns, publish the whole table once with strategy REPLACE",
		strategy, strings.Join(wrong, "; "))
}
