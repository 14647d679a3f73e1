package engine

import (
	"context"
	"fmt"
	"strings"

	"github.com/headgate/headgate/exec/protocol"
)

// cut turns files into parts.
func (e *execution) cut(ctx context.Context) (*protocol.Answer, error) {
	if len(e.order.Files) == 0 {
		return nil, dataError("there is no file to read")
	}
	query, explain, end, err := e.source(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	stop, err := e.watch(ctx, "reading")
	if err != nil {
		return nil, err
	}
	defer stop()
	columns, err := e.db.describeQuery(ctx, query)
	if err != nil {
		return nil, fileError(err)
	}
	if e.order.FileFormat == "csv" && len(columns) == 1 {
		if err := raggedCSV(e.order.Files, columns[0].Name); err != nil {
			return nil, err
		}
	}
	if err := checkNames(columns); err != nil {
		return nil, err
	}
	key, err := resolveKey(e.order.Key, columns)
	if err != nil {
		return nil, err
	}
	if err := e.store(ctx, query, columns, key, e.order.KeepOrder && len(key) == 0); err != nil {
		u := userError(fileError(explain(err)))
		if len(e.order.Files) == 1 && u.Kind == kindData {
			return nil, inFile(u, e.order.Files[0])
		}
		return nil, u
	}
	stop()
	return e.combine(ctx, key)
}

// source returns the query of all the files' rows, in order. explain gives an error of
// it its cause, and end gives back what the query reads.
func (e *execution) source(ctx context.Context) (query string, explain func(error) error, end func(), err error) {
	explain, end = func(err error) error { return err }, func() {}
	files := literalList(e.order.Files)
	switch e.order.FileFormat {
	case "parquet":
		if err := e.db.sameColumns(ctx, e.order.Files); err != nil {
			return "", nil, nil, err
		}
		query = "read_parquet(" + files + ", union_by_name = true, hive_partitioning = false)"
	case "csv":
		options, err := e.csvOptions(ctx)
		if err != nil {
			return "", nil, nil, err
		}
		query = "read_csv(" + files + options + ")"
	case "json":
		query = "read_json(" + files + ", union_by_name = true, hive_partitioning = false, sample_size = -1, maximum_sample_files = 1000000)"
	case "arrow":
		return e.arrowViews(ctx, e.order.Files)
	default:
		return "", nil, nil, dataError("file format %q: want parquet, csv, json or arrow", e.order.FileFormat)
	}
	return "SELECT * FROM " + query, explain, end, nil
}

// fileError is an error of reading files: the statement is ours, so that neither
// its positions nor DuckDB's kinds of error mean anything to the user.
func fileError(err error) error {
	u := userError(err)
	if u.Kind == kindSQL {
		u.Kind = kindData
	}
	u.Line, u.Column = 0, 0
	if text, ok := csvFailure(u.Message); ok {
		u.Message = text
	}
	// DuckDB appends the reader's options to errors in CSV.
	if at := strings.Index(u.Message, "\n\nPossible fixes:"); at >= 0 {
		u.Message = u.Message[:at]
	}
	if at := strings.Index(u.Message, "\nPossible fixes:"); at >= 0 {
		u.Message = u.Message[:at]
	}
	return u
}

// sameColumns refuses Parquet files of which one has another type for a column
// than the first; a column that a file lacks is NULL there.
func (db *database) sameColumns(ctx context.Context, files []string) error {
	same := make(columnTypes)
	for _, f := range files {
		columns, err := db.parquetColumns(ctx, f)
		if err != nil {
			return err
		}
		if err := same.add(columns, f); err != nil {
			return err
		}
	}
	return nil
}

// columnTypes are the types of columns by their names in lower case, and where each
// was first.
type columnTypes map[string]struct{ kind, file string }

// add refuses a column of another type than in the files before, but for numbers.
// DuckDB would turn numbers into text to make both fit.
func (first columnTypes) add(columns []protocol.Column, file string) error {
	for _, c := range columns {
		name := strings.ToLower(c.Name)
		before, ok := first[name]
		if !ok {
			first[name] = struct{ kind, file string }{c.Type, file}
			continue
		}
		if before.kind != c.Type && (!isNumber(before.kind) || !isNumber(c.Type)) {
			return dataError("column %q is %s in %q but %s in %q", c.Name, before.kind, before.file, c.Type, file)
		}
	}
	return nil
}

func isNumber(t string) bool {
	switch t {
	case "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "FLOAT", "DOUBLE":
		return true
	}
	return strings.HasPrefix(t, "DECIMAL(")
}

// parquetColumns returns a file's columns as the file says: names, DuckDB's
// types, and whether a column may be NULL.
func (db *database) parquetColumns(ctx context.Context, file string) ([]protocol.Column, error) {
	if err := checkNesting(file); err != nil {
		return nil, inFile(err, file)
	}
	columns, err := db.describeQuery(ctx, "SELECT * FROM "+parquet(file))
	if err != nil {
		return nil, inFile(fileError(err), file)
	}
	schema, err := db.parquetSchema(ctx, file)
	if err != nil {
		return nil, inFile(fileError(err), file)
	}
	// The schema is a tree in depth-first order; the root's children are columns.
	seen := make(map[string]bool)
	at := 1
	for i := range columns {
		if at >= len(schema) {
			break
		}
		name := schema[at].name
		if seen[strings.ToLower(name)] {
			return nil, inFile(dataError("two columns are named %q", name), file)
		}
		seen[strings.ToLower(name)] = true
		columns[i].Nullable = schema[at].repetition != "REQUIRED"
		for open := int64(1); open > 0 && at < len(schema); at++ {
			open += schema[at].children - 1
			schema[at].column = i
		}
	}
	if err := lossless(schema, columnNames(columns), file); err != nil {
		return nil, inFile(err, file)
	}
	if len(columns) == 0 {
		return nil, inFile(dataError("there are no columns"), file)
	}
	return columns, nil
}

// parquetSchema returns the nodes of a file's schema, the root first.
func (db *database) parquetSchema(ctx context.Context, file string) ([]element, error) {
	rows, err := db.conn.QueryContext(ctx, "SELECT name, coalesce(repetition_type, ''), coalesce(num_children, 0), coalesce(type, ''), coalesce(logical_type, ''), coalesce(precision, 0), coalesce(scale, 0) FROM parquet_schema("+literal(file)+")")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var schema []element
	for rows.Next() {
		el := element{column: -1}
		if err := rows.Scan(&el.name, &el.repetition, &el.children, &el.physical, &el.logical, &el.precision, &el.scale); err != nil {
			return nil, err
		}
		schema = append(schema, el)
	}
	return schema, rows.Err()
}

// inFile names the file in an error, unless DuckDB did.
func inFile(err error, file string) error {
	u := userError(err)
	if !strings.Contains(u.Message, file) {
		u.Message = fmt.Sprintf("%s: %s", file, u.Message)
	}
	return u
}

// describe reads the parts of one table as they are.
func (e *execution) describe(ctx context.Context) (*protocol.Answer, error) {
	if len(e.order.Inputs) != 1 || len(e.order.Inputs[0].Files) == 0 {
		return nil, dataError("want one table with at least one part")
	}
	files := e.order.Inputs[0].Files
	snapshot := &protocol.Snapshot{}
	var total int64
	for i, f := range files {
		columns, err := e.db.parquetColumns(ctx, f)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			snapshot.Columns = columns
		} else if diff := differ(snapshot.Columns, columns); diff != "" {
			return nil, dataError("%s does not fit %s: %s", f, files[0], diff)
		}
		for j := range columns {
			snapshot.Columns[j].Nullable = snapshot.Columns[j].Nullable || columns[j].Nullable
		}
		part := protocol.Part{File: f}
		if err := e.db.conn.QueryRowContext(ctx, "SELECT count(*) FROM "+parquet(f)).Scan(&part.Rows); err != nil {
			return nil, inFile(fileError(err), f)
		}
		if part.Stats, err = e.db.stats(ctx, parquet(f), columns); err != nil {
			return nil, inFile(fileError(err), f)
		}
		total += part.Rows
		snapshot.Parts = append(snapshot.Parts, part)
	}
	return &protocol.Answer{Snapshot: snapshot, Rows: total}, nil
}

// differ names the first difference between two parts' columns.
func differ(first, other []protocol.Column) string {
	for i, c := range first {
		switch {
		case i >= len(other):
			return fmt.Sprintf("it lacks column %q", c.Name)
		case other[i].Name != c.Name:
			return fmt.Sprintf("column %d is %q, want %q", i+1, other[i].Name, c.Name)
		case other[i].Type != c.Type:
			return fmt.Sprintf("column %q is %s, want %s", c.Name, other[i].Type, c.Type)
		}
	}
	if len(other) > len(first) {
		return fmt.Sprintf("it has one more column, %q", other[len(first)].Name)
	}
	return ""
}
