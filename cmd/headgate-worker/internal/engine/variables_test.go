package engine

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/headgate/headgate/exec/protocol"
)

// A parameter is a value of its type, whatever its text says.
func TestVariablesAreTypedValues(t *testing.T) {
	order := &protocol.Order{
		Op: protocol.OpQuery, Format: "csv",
		SQL: `SELECT x || ':' || t AS v FROM (VALUES
			(getvariable('s')::VARCHAR, typeof(getvariable('s'))), (getvariable('i')::VARCHAR, typeof(getvariable('i'))),
			(getvariable('f')::VARCHAR, typeof(getvariable('f'))), (getvariable('b')::VARCHAR, typeof(getvariable('b'))),
			(getvariable('d')::VARCHAR, typeof(getvariable('d'))), (getvariable('ts')::VARCHAR, typeof(getvariable('ts'))),
			(getvariable('Guess')::VARCHAR, typeof(getvariable('guess'))), (getvariable('huge')::VARCHAR, typeof(getvariable('huge'))),
			(coalesce(getvariable('nil')::VARCHAR, 'NULL'), 'n')) v(x, t)`,
		Params: map[string]any{
			"s": `'; DROP TABLE x; --`, "i": json.Number("12345678901234567"), "f": json.Number("3.0"), "b": true, "d": "2001-01-31",
			"ts": "2001-01-31T10:00:00.25", "guess": json.Number("12345678901234567"), "huge": json.Number("12345678901234567890"), "nil": nil,
		},
		ParamTypes: map[string]string{"s": "str", "i": "int", "f": "float", "b": "bool", "d": "date", "ts": "timestamp"},
	}
	_, files := ok(t, order)
	want := strings.Join([]string{
		"v", `'; DROP TABLE x; --:VARCHAR`, "12345678901234567:BIGINT", "3.0:DOUBLE", "true:BOOLEAN", "2001-01-31:DATE",
		"2001-01-31 10:00:00.25:TIMESTAMP", "12345678901234567:BIGINT", "12345678901234567890:HUGEINT", "NULL:n", "",
	}, "\n")
	if got := string(files["rows"]); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// DuckDB takes a variable that is not set for NULL: a mistyped name would be a wrong result.
func TestVariablesMustBeSet(t *testing.T) {
	for sql, want := range map[string]string{
		"SELECT getvariable('dya') AS d":                            `no parameter "dya"`,
		"SELECT getvariable('d' || 'ay') AS d":                      "written as a text",
		"SELECT getvariable(x) AS d FROM (SELECT 'day' AS x)":       "written as a text",
		"WITH c AS (SELECT getvariable('no') AS d) SELECT * FROM c": `no parameter "no"`,
	} {
		a, _ := do(t, &protocol.Order{Op: protocol.OpModel, SQL: sql, Params: map[string]any{"day": "2001-01-01"}})
		if a.Error == nil || !strings.Contains(a.Error.Message, want) || a.Error.Line != 1 {
			t.Errorf("%s: %+v, want an error on line 1 that says %q", sql, a.Error, want)
		}
	}
	a, _ := ok(t, &protocol.Order{Op: protocol.OpTables, Queries: []protocol.Query{{Name: "q", SQL: "SELECT getvariable('b'), getvariable('a') FROM t WHERE x = getvariable('b')"}}})
	if got := strings.Join(a.Tables[0].Variables, " "); got != "a b" {
		t.Errorf("variables: %q, want \"a b\"", got)
	}
}
