package engine

import (
	"context"

	"github.com/headgate/headgate/exec/protocol"
)

// model evaluates the order's SQL and sends the result as parts, in an order
// that the rows alone decide: the key's, or the query's own with all columns as
// tie-break, or that of all columns.
func (e *execution) model(ctx context.Context) (*protocol.Answer, error) {
	st, err := e.db.parse(ctx, e.order.SQL)
	if err != nil {
		return nil, err
	}
	columns, err := e.db.userColumns(ctx, st)
	if err != nil {
		return nil, err
	}
	if err := checkNames(columns); err != nil {
		return nil, err
	}
	key, err := resolveKey(e.order.Key, columns)
	if err != nil {
		return nil, err
	}
	query := st.sql
	ordered := false
	if len(key) == 0 {
		if own, ok := e.db.totalOrder(ctx, st, len(columns)); ok {
			query, ordered = own, true
		}
	}
	if err := e.store(ctx, query, columns, key, ordered); err != nil {
		return nil, err
	}
	return e.combine(ctx, key)
}

// userColumns binds the user's query and returns its columns as written.
func (db *database) userColumns(ctx context.Context, st *statement) ([]protocol.Column, error) {
	if err := db.checkVariables(st); err != nil {
		return nil, err
	}
	query, prefix := st.sql, len(describePrefix)
	if st.isShow() {
		const before = "SELECT * FROM (\n"
		query, prefix = before+query+"\n)", prefix+len(before)
	}
	columns, err := db.describeQuery(ctx, query)
	if err != nil {
		return nil, queryError(err, st.sql, prefix)
	}
	return columns, nil
}

// store fills rowsTable with the query's rows. ordered says that the query's own
// order is to be kept.
func (e *execution) store(ctx context.Context, query string, columns []protocol.Column, key []string, ordered bool) error {
	list, err := projection(columns, false)
	if err != nil {
		return err
	}
	before := "CREATE TABLE " + rowsTable + " AS SELECT " + list + " FROM (\n"
	after := "\n)"
	if !ordered {
		order := columns
		if len(key) > 0 {
			order = inKeyOrder(key, columns)
		}
		after += " ORDER BY " + canonicalOrder(order)
	}
	if err := e.db.exec(ctx, before+query+after); err != nil {
		return queryError(err, query, len(before))
	}
	return nil
}

// inKeyOrder returns the key's columns as the key lists them. The key is unique,
// or the result is refused, so no other column is needed.
func inKeyOrder(key []string, columns []protocol.Column) []protocol.Column {
	sorted := make([]protocol.Column, 0, len(key))
	for _, k := range key {
		for _, c := range columns {
			if c.Name == k {
				sorted = append(sorted, c)
			}
		}
	}
	return sorted
}
