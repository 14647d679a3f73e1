package engine

import (
	"slices"
	"testing"

	"github.com/headgate/headgate/exec/protocol"
)

func TestQueriesReadTheseTables(t *testing.T) {
	for sql, want := range map[string][]string{
		"SELECT 1":     {},
		"FROM flights": {"flights"},
		`SELECT * FROM "Odd name" JOIN ns.t ON true`:                                               {"Odd name", "ns.t"},
		"SELECT * FROM a JOIN b USING (x)":                                                         {"a", "b"},
		"SELECT * FROM base.t ANTI JOIN t USING (id)":                                              {"base.t", "t"},
		"SELECT * FROM a NATURAL JOIN b, base.ns.c":                                                {"a", "b", "base.ns.c"},
		"SELECT * FROM a POSITIONAL JOIN b":                                                        {"a", "b"},
		"SELECT * FROM a ASOF JOIN b USING (x)":                                                    {"a", "b"},
		"SELECT (SELECT max(x) FROM a) FROM b WHERE EXISTS (FROM c) AND x IN (SELECT y FROM d)":    {"a", "b", "c", "d"},
		"SELECT * FROM a UNION ALL SELECT * FROM b EXCEPT FROM c":                                  {"a", "b", "c"},
		"WITH x AS (FROM a), y AS (FROM x) SELECT * FROM y":                                        {"a"},
		"WITH x AS (FROM x) SELECT * FROM X":                                                       {"x"},
		"WITH x AS (FROM a) SELECT * FROM ns.x":                                                    {"a", "ns.x"},
		"SELECT * FROM (WITH x AS (FROM a) FROM x), x":                                             {"a", "x"},
		"WITH x AS (WITH y AS (FROM a) FROM y) SELECT * FROM x, y":                                 {"a", "y"},
		"WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r JOIN b ON n < 3) FROM r": {"b"},
		"SELECT * FROM range(3) r(i) JOIN a USING (i)":                                             {"a"},
		"PIVOT a ON k IN ('x', 'y') USING sum(v)":                                                  {"a"},
		"UNPIVOT a ON x, y INTO NAME n VALUE v":                                                    {"a"},
		"DESCRIBE a":                                                                               {"a"},
		"SELECT * FROM (VALUES (1)) v(a), LATERAL (SELECT * FROM b WHERE b.x = v.a)":               {"b"},
	} {
		t.Run(sql, func(t *testing.T) {
			a, _ := ok(t, &protocol.Order{Op: protocol.OpTables, Queries: []protocol.Query{{Name: "q", SQL: sql}}})
			if got := a.Tables[0]; got.Error != nil || !slices.Equal(got.Tables, want) {
				t.Errorf("reads %q, want %q (%v)", got.Tables, want, got.Error)
			}
		})
	}
}
