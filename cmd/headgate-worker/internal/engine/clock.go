package engine

import (
	"slices"
	"strings"

	"github.com/headgate/headgate/exec/protocol"
)

// clockFunctions give another result at another time. random() and uuid() are
// not among them: the seed and the one thread are fixed, so they repeat.
var clockFunctions = map[string]bool{
	"now": true, "today": true, "get_current_timestamp": true, "get_current_time": true, "transaction_timestamp": true,
	"current_date": true, "current_time": true, "current_timestamp": true, "localtime": true, "localtimestamp": true,
	"current_localtime": true, "current_localtimestamp": true, "uuidv7": true,
}

// clockWords are SQL's functions without parentheses. DuckDB takes one for a
// column if there is a column of that name.
var clockWords = map[string]bool{
	"current_date": true, "current_time": true, "current_timestamp": true, "localtime": true, "localtimestamp": true,
}

// clockReads returns where a query reads the clock, in the order of the text.
func clockReads(sql string, st *statement) []protocol.ClockRead {
	c := clock{sql: sql, names: make(map[string]bool)}
	c.collectNames(st.node)
	c.collect(st.node)
	slices.SortFunc(c.found, func(a, b protocol.ClockRead) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return slices.Compact(c.found)
}

type clock struct {
	sql   string
	names map[string]bool // that the query itself gives to columns, in lower case
	found []protocol.ClockRead
}

func (c *clock) collectNames(v any) {
	switch v := v.(type) {
	case []any:
		for _, child := range v {
			c.collectNames(child)
		}
	case map[string]any:
		// "current_date AS current_date" names a column, and reads the clock.
		if alias, _ := v["alias"].(string); alias != "" && (v["class"] != "COLUMN_REF" || !strings.EqualFold(alias, word(v))) {
			c.names[strings.ToLower(alias)] = true
		}
		for key, child := range v {
			if key == "aliases" || key == "column_name_alias" { // of a CTE's and of a table's columns
				for _, name := range list(child) {
					if s, ok := name.(string); ok {
						c.names[strings.ToLower(s)] = true
					}
				}
			}
			c.collectNames(child)
		}
	}
}

func (c *clock) collect(v any) {
	switch v := v.(type) {
	case []any:
		for _, child := range v {
			c.collect(child)
		}
	case map[string]any:
		switch v["class"] {
		case "FUNCTION":
			name, _ := v["function_name"].(string)
			name = strings.ToLower(name)
			schema, _ := v["schema"].(string)
			system := schema == "" || schema == "main" || schema == "pg_catalog"
			if system && (clockFunctions[name] || name == "age" && len(list(v["children"])) == 1) {
				c.add(v, name+"()", false)
			}
		case "COLUMN_REF":
			if name := strings.ToLower(word(v)); clockWords[name] && !c.names[name] {
				c.add(v, name, true)
			}
		}
		for _, child := range v {
			c.collect(child)
		}
	}
}

// word returns the name of a column that is named without its table, else "".
func word(ref map[string]any) string {
	path := list(ref["column_names"])
	if len(path) != 1 {
		return ""
	}
	name, _ := path[0].(string)
	return name
}

func (c *clock) add(node map[string]any, name string, word bool) {
	line, column := lineColumn(c.sql, location(node))
	c.found = append(c.found, protocol.ClockRead{Name: name, Line: line, Column: column, Word: word})
}
