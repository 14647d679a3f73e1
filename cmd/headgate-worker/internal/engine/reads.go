package engine

import (
	"sort"
	"strings"
)

// readBy returns the tables that a query reads, by name as it is written, with
// dots between the segments; CTEs are not tables.
//
// The names come from the syntax tree. DuckDB's own list of table names binds the
// query to tables without columns, and so refuses every JOIN ... USING.
func readBy(st *statement) []string {
	found := make(map[string]bool)
	collectReads(st.node, nil, found)
	names := make([]string, 0, len(found))
	for name := range found {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// scope is the names of the CTEs that a part of a query sees, innermost first.
type scope struct {
	name  string
	outer *scope
}

func (s *scope) has(name string) bool {
	for ; s != nil; s = s.outer {
		if strings.EqualFold(s.name, name) {
			return true
		}
	}
	return false
}

// collectReads adds the base tables below v to found.
func collectReads(v any, ctes *scope, found map[string]bool) {
	switch v := v.(type) {
	case []any:
		for _, child := range v {
			collectReads(child, ctes, found)
		}
	case map[string]any:
		if v["type"] == "BASE_TABLE" {
			if name, cte := tableName(v, ctes); !cte {
				found[name] = true
			}
		}
		if name, ok := v["cte_name"].(string); ok && v["type"] == "RECURSIVE_CTE_NODE" {
			ctes = &scope{name, ctes} // only a recursive CTE sees itself
		}
		if m, ok := v["cte_map"].(map[string]any); ok {
			for _, entry := range list(m["map"]) {
				entry, _ := entry.(map[string]any)
				name, _ := entry["key"].(string)
				collectReads(entry["value"], ctes, found)
				ctes = &scope{name, ctes} // the ones after it see it, and so does the query
			}
		}
		for key, child := range v {
			if key != "cte_map" {
				collectReads(child, ctes, found)
			}
		}
	}
}

// tableName returns the name of a BASE_TABLE node, and whether it is a CTE's.
func tableName(node map[string]any, ctes *scope) (name string, cte bool) {
	var segments []string
	for _, key := range []string{"catalog_name", "schema_name", "table_name"} {
		if s, _ := node[key].(string); s != "" {
			segments = append(segments, s)
		}
	}
	last := segments[max(0, len(segments)-1):]
	if len(segments) == 1 || (len(segments) == 2 && segments[0] == "recurring") {
		cte = len(last) == 1 && ctes.has(last[0])
	}
	return strings.Join(segments, "."), cte
}
