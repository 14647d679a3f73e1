package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"sort"
	"strconv"
	"strings"

	"github.com/headgate/headgate/exec/protocol"
)

// statement is a parsed query: exactly one, and a SELECT in the wide sense.
type statement struct {
	sql    string // as the user wrote it, up to its last token
	node   map[string]any
	orders []any // the terms of the outermost ORDER BY

	variables []string // that it reads, sorted
	inserted  []int    // offsets in sql of quotes that the user did not write
}

// tableFunctions are those that a query may read from: they make rows of their
// arguments only. All others read files, settings or catalogs, or run text as
// SQL, so what a query reads would not be known from the query.
var tableFunctions = map[string]bool{
	"range": true, "generate_series": true, "unnest": true,
	"json_each": true, "json_tree": true,
	"repeat": true, "repeat_row": true, "summary": true,
}

// parse checks that sql is one SELECT which reads tables only. The error is a
// *protocol.UserError with a position.
func (db *database) parse(ctx context.Context, sql string) (*statement, error) {
	var doc string
	row := db.conn.QueryRowContext(ctx, "SELECT CAST(json_serialize_sql("+literal(sql)+") AS VARCHAR)")
	if err := row.Scan(&doc); err != nil {
		return nil, userError(err)
	}
	var parsed struct {
		Error      bool   `json:"error"`
		Type       string `json:"error_type"`
		Message    string `json:"error_message"`
		Position   any    `json:"position"`
		Statements []struct {
			Node map[string]any `json:"node"`
		} `json:"statements"`
	}
	dec := json.NewDecoder(strings.NewReader(doc))
	dec.UseNumber()
	if err := dec.Decode(&parsed); err != nil {
		return nil, fmt.Errorf("read DuckDB's syntax tree: %w", err)
	}
	if parsed.Error {
		return nil, db.parseError(sql, parsed.Type, parsed.Message, parsed.Position)
	}
	switch len(parsed.Statements) {
	case 0:
		return nil, sqlError(sql, -1, "there is no query: write one SELECT")
	case 1:
	default:
		at, _ := secondStatement(sql)
		return nil, severalStatements(sql, at)
	}
	st := &statement{sql: body(sql), node: parsed.Statements[0].Node}
	if hasParameter(st.node) {
		return nil, sqlError(sql, parameterOffset(sql), "a placeholder has no value here: a model declares -- headgate: params=[day] and reads getvariable('day')")
	}
	if err := checkSources(sql, st.node); err != nil {
		return nil, err
	}
	var err error
	if st.variables, err = variables(sql, st.node); err != nil {
		return nil, err
	}
	for _, m := range list(st.node["modifiers"]) {
		if m, _ := m.(map[string]any); m["type"] == "ORDER_MODIFIER" {
			st.orders = list(m["orders"])
		}
	}
	return st, nil
}

func (db *database) parseError(sql, kind, message string, position any) error {
	offset := -1
	if position != nil {
		if n, err := strconv.Atoi(fmt.Sprint(position)); err == nil {
			offset = n
		}
	}
	if kind == "parser" {
		// Syntax errors count characters, all others bytes.
		offset = byteOffset(sql, offset)
		return sqlError(sql, offset, "Parser Error: %s", message)
	}
	// It parses, but is not a SELECT.
	if at, ok := secondStatement(sql); ok {
		return severalStatements(sql, at)
	}
	tokens := scan(sql)
	for _, t := range tokens {
		if t.text == "PIVOT" || t.text == "PIVOT_WIDER" {
			return sqlError(sql, t.start, "PIVOT needs its list of values (ON ... IN (...)): a table's columns must not depend on its data")
		}
	}
	first := 0
	word := "this"
	if len(tokens) > 0 {
		first, word = tokens[0].start, tokens[0].text
	}
	return sqlError(sql, first, "only a SELECT is allowed here, not %s", word)
}

// byteOffset returns the byte at which the n-th character starts; -1 stays -1.
func byteOffset(s string, n int) int {
	if n < 0 {
		return -1
	}
	for at := range s {
		if n == 0 {
			return at
		}
		n--
	}
	return len(s)
}

// checkSources walks the syntax tree and refuses files and functions that read
// something else than tables.
func checkSources(sql string, v any) error {
	switch v := v.(type) {
	case []any:
		for _, child := range v {
			if err := checkSources(sql, child); err != nil {
				return err
			}
		}
	case map[string]any:
		switch v["type"] {
		case "TABLE_FUNCTION":
			f, _ := v["function"].(map[string]any)
			name, _ := f["function_name"].(string)
			if !tableFunctions[strings.ToLower(name)] {
				return sqlError(sql, location(v), "table function %s is not allowed: queries read the tables of the commit, not files or settings", name)
			}
		case "BASE_TABLE":
			name, _ := v["table_name"].(string)
			if v["schema_name"] == "" && strings.ContainsAny(name, "./\\*?:") && !ofRevision.MatchString(name) {
				return sqlError(sql, location(v), "%q is a file: queries read the tables of the commit, not files (headgate import makes a table of a file)", name)
			}
		}
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		sort.Strings(keys) // the same error each time
		for _, k := range keys {
			if err := checkSources(sql, v[k]); err != nil {
				return err
			}
		}
	}
	return nil
}

// isShow reports whether the query is a DESCRIBE, SHOW or SUMMARIZE, which are
// SELECTs to DuckDB but cannot be described themselves.
func (st *statement) isShow() bool {
	from, _ := st.node["from_table"].(map[string]any)
	return from["type"] == "SHOW_REF"
}

// hasParameter reports whether the syntax tree has a prepared statement's parameter.
func hasParameter(v any) bool {
	switch v := v.(type) {
	case []any:
		for _, child := range v {
			if hasParameter(child) {
				return true
			}
		}
	case map[string]any:
		if v["class"] == "PARAMETER" {
			return true
		}
		for _, child := range v {
			if hasParameter(child) {
				return true
			}
		}
	}
	return false
}

// parameterOffset finds "?" or "$1" in a query that has one; DuckDB does not say where.
func parameterOffset(sql string) int {
	for _, t := range scan(sql) {
		if t.text == "?" || t.text == "$" {
			return t.start
		}
	}
	return -1
}

// secondStatement returns the offset of what follows the first semicolon.
func secondStatement(sql string) (int, bool) {
	ended := false
	for _, t := range scan(sql) {
		if ended && t.text != ";" {
			return t.start, true
		}
		ended = ended || t.text == ";" && t.depth == 0
	}
	return -1, false
}

func severalStatements(sql string, offset int) error {
	return sqlError(sql, offset, "there is more than one statement: write one SELECT")
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

// location returns a syntax tree node's byte offset, -1 if it has none.
func location(node map[string]any) int {
	n, ok := node["query_location"].(json.Number)
	if !ok {
		return -1
	}
	at, err := strconv.Atoi(n.String()) // "no location" is 2^64-1, which is no int
	if err != nil {
		return -1
	}
	return at
}

// totalOrder returns the query with all its columns added to its own ORDER BY,
// so that rows that tie there have one order; false if it has no ORDER BY, or a
// form of it that takes no more terms.
func (db *database) totalOrder(ctx context.Context, st *statement, columns int) (string, bool) {
	if len(st.orders) == 0 {
		return "", false
	}
	at, ok := orderEnd(st.sql)
	if !ok {
		return st.sql, true
	}
	terms := make([]string, columns)
	for i := range terms {
		terms[i] = strconv.Itoa(i + 1)
	}
	// On the same line: positions in errors before this point stay true.
	extended := st.sql[:at] + ", " + strings.Join(terms, ", ") + st.sql[at:]
	again, err := db.parse(ctx, extended)
	if err != nil || len(again.orders) != len(st.orders)+columns {
		return st.sql, true // ORDER BY ALL, say, which is total already
	}
	return extended, true
}

// tables lists what each query reads.
func (e *execution) tables(ctx context.Context) (*protocol.Answer, error) {
	answer := &protocol.Answer{Tables: make([]protocol.QueryTables, 0, len(e.order.Queries))}
	for _, q := range e.order.Queries {
		found := protocol.QueryTables{Name: q.Name}
		st, err := e.db.parseQuestion(ctx, q.SQL)
		if err != nil {
			found.Error = userError(err)
			found.Error.Query = q.Name
		} else {
			found.Tables, found.Variables, found.Clock = readBy(st), st.variables, clockReads(q.SQL, st)
		}
		answer.Tables = append(answer.Tables, found)
	}
	return answer, nil
}
