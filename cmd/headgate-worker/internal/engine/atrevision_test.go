package engine

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/headgate/headgate/exec/protocol"
)

func TestQuestionsNameRevisions(t *testing.T) {
	for sql, want := range map[string][]string{
		`SELECT * FROM "flights@HEAD~3"`:                   {"flights@HEAD~3"},
		"FROM flights@v1":                                  {"flights@v1"},
		"FROM flights@v1.0 AS old JOIN flights USING (id)": {"flights", "flights@v1.0"},
		"FROM ns.flights@release/1-x~2^2, b":               {"b", "ns.flights@release/1-x~2^2"},
		`FROM "ns.flights@v1"`:                             {"ns.flights@v1"},
		`FROM ns."flights@a.b"`:                            {"ns.flights@a.b"},
		"FROM t@main@{yesterday}":                          {"t@main@{yesterday}"},
		"FROM t@@{2 days ago} x":                           {"t@@{2 days ago}"},
		"FROM t@@~1":                                       {"t@@~1"},
		"SELECT (SELECT count(*) FROM a@x) - (SELECT count(*) FROM a@y)": {"a@x", "a@y"},
		"FROM a@x-- a comment":                                     {"a@x"},
		"FROM a@x/* a comment */ JOIN b@y/z ON true":               {"a@x", "b@y/z"},
		"SELECT @x FROM a WHERE y <@ z":                            {"a"},
		"SELECT '1@2' FROM a":                                      {"a"},
		`SELECT "b@c" FROM (SELECT 1 AS "b@c"), a`:                 {"a"},
		`WITH "x@1" AS (FROM a) FROM "x@1"`:                        {"a"},
		"FROM a@0123456789abcdef0123456789abcdef01234567;":         {"a@0123456789abcdef0123456789abcdef01234567"},
		"SUMMARIZE a@v1":                                           {"a@v1"},
		"FROM a@v1 UNION ALL BY NAME FROM a@v2 ORDER BY 1 LIMIT 3": {"a@v1", "a@v2"},
		"SELECT * FROM (a@v1 JOIN b@v1 USING (id))":                {"a@v1", "b@v1"},
	} {
		t.Run(sql, func(t *testing.T) {
			a, _ := ok(t, &protocol.Order{Op: protocol.OpTables, Queries: []protocol.Query{{Name: "q", SQL: sql}}})
			if got := a.Tables[0]; got.Error != nil || !slices.Equal(got.Tables, want) {
				t.Errorf("reads %q, want %q (%v)", got.Tables, want, got.Error)
			}
		})
	}
}

// What is no table's name is still a file, or a mistake where it was made.
func TestQuestionsThatAreWrong(t *testing.T) {
	for sql, want := range map[string]struct {
		text         string
		line, column int
	}{
		`FROM "/etc/passwd@v1"`:        {"is a file", 1, 6},
		`FROM "s3://me@bucket/x"`:      {"is a file", 1, 6},
		"FROM t@v1\nWHERE SELEC x":     {"syntax error", 2, 13},
		"FROM t@v1 JOIN u@v2 ONN true": {"syntax error", 1, 25},
	} {
		a, _ := ok(t, &protocol.Order{Op: protocol.OpTables, Queries: []protocol.Query{{Name: "q", SQL: sql}}})
		u := a.Tables[0].Error
		if u == nil || !strings.Contains(u.Message, want.text) || u.Line != want.line || u.Column != want.column {
			t.Errorf("%s: %+v, want %+v", sql, u, want)
		}
	}
}

func TestTablesAtRevisionsAreQueried(t *testing.T) {
	var inputs []protocol.Table
	for name, query := range map[string]string{
		"t": "SELECT 1 AS id, 'new' AS v", "t@v1.0": "SELECT 1 AS id, 'old' AS v", "ns.t@HEAD~1": "SELECT 1 AS id, 'ns' AS v",
	} {
		inputs = append(inputs, protocol.Table{Name: name, Files: []string{write(t, query, "")}})
	}
	for sql, want := range map[string]string{
		`SELECT t.v || o.v || n.v AS x FROM t JOIN t@v1.0 o USING (id) JOIN ns.t@HEAD~1 n USING (id)`: "x\nnewoldns\n",
		`SELECT v FROM "ns.t@HEAD~1"`:     "v\nns\n",
		`SELECT "t@v1.0".v FROM "T@v1.0"`: "v\nold\n",
		`DESCRIBE t@v1.0`:                 "column_name,column_type,null,key,default,extra\nid,INTEGER,YES,,,\nv,VARCHAR,YES,,,\n",
	} {
		_, files := ok(t, &protocol.Order{Op: protocol.OpQuery, SQL: sql, Format: "csv", Inputs: inputs})
		if got := files[resultFile]; !bytes.Equal(got, []byte(want)) {
			t.Errorf("%s: %q, want %q", sql, got, want)
		}
	}
	u := wrong(t, &protocol.Order{Op: protocol.OpQuery, SQL: "FROM t@v1.0 JOIN t USING (id)\nWHERE nix = 1 OR nox", Format: "csv", Inputs: inputs})
	if u.Line != 2 || u.Column != 7 {
		t.Errorf("an error behind a name: %+v", u)
	}
	u = wrong(t, &protocol.Order{Op: protocol.OpQuery, SQL: "SELECT nix FROM t@v1.0 o, ns.t@HEAD~1 n WHERE true", Format: "csv", Inputs: inputs})
	if u.Line != 1 || u.Column != 8 {
		t.Errorf("an error before a name: %+v", u)
	}
	u = wrong(t, &protocol.Order{Op: protocol.OpQuery, SQL: "SELECT t.id FROM t@v1.0 o, t WHERE nox", Format: "csv", Inputs: inputs})
	if u.Line != 1 || u.Column != 36 {
		t.Errorf("an error behind a name on its line: %+v", u)
	}
}

func wrong(t *testing.T, order *protocol.Order) *protocol.UserError {
	t.Helper()
	a, _ := do(t, order)
	if a.Error == nil {
		t.Fatalf("%s works", order.SQL)
	}
	return a.Error
}

// Whatever the text, quotes are all that is added, around whole names, and outside of
// what is quoted already.
func TestPropertyQuotesAreAllThatIsAdded(t *testing.T) {
	words := []string{"FROM ", "JOIN ", "t", "ns.", "@", "@{", "}", "v1", "~2", "^", "/", "-", "--", "/*", "*/", "'", `"`, ",", "(", ")", " ", "\n", "$$", "é", ";", "HEAD"}
	rapid.Check(t, func(t *rapid.T) {
		sql := strings.Join(rapid.SliceOfN(rapid.SampledFrom(words), 0, 25).Draw(t, "words"), "")
		names := bareNames(sql)
		quoted, marks := quoteSpans(sql, names)
		if len(marks) != 2*len(names) || !slices.IsSorted(marks) {
			t.Fatalf("%q: marks %v of %v", sql, marks, names)
		}
		back := []byte(quoted)
		for i := len(marks) - 1; i >= 0; i-- {
			if back[marks[i]] != '"' {
				t.Fatalf("%q: %q has no quote at %d", sql, quoted, marks[i])
			}
			back = slices.Delete(back, marks[i], marks[i]+1)
		}
		if string(back) != sql {
			t.Fatalf("%q became %q", sql, quoted)
		}
		inText := make([]bool, len(sql))
		for _, tok := range scan(sql) {
			for i := tok.start; tok.text == "" && i < tok.end; i++ {
				inText[i] = true
			}
		}
		for _, n := range names {
			name := sql[n.start:n.end]
			if strings.ContainsAny(name, "\"'\n") || !strings.Contains(name, "@") || inText[n.start] {
				t.Fatalf("%q: %q is no name", sql, name)
			}
		}
	})
}
