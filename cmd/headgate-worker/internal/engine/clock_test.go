package engine

import (
	"fmt"
	"strings"
	"testing"

	"github.com/headgate/headgate/exec/protocol"
)

func TestClockReads(t *testing.T) {
	for _, c := range []struct{ sql, want string }{
		{"SELECT now()", "1:8 now()"},
		{"SELECT 1,\n  date_diff('day', d, Current_Date) AS age FROM t", "2:23 current_date word"},
		{"SELECT today(), get_current_timestamp(), transaction_timestamp(), current_localtimestamp()",
			"1:8 today(), 1:17 get_current_timestamp(), 1:42 transaction_timestamp(), 1:67 current_localtimestamp()"},
		{"SELECT uuidv7(), pg_catalog.now()", "1:8 uuidv7(), 1:18 now()"},
		{"SELECT age(d), age(d, e) FROM t", "1:8 age()"},
		{"SELECT * FROM t WHERE d < (SELECT max(localtimestamp) FROM t)", "1:39 localtimestamp word"},
		{"WITH x AS (SELECT now() AS n) SELECT n FROM x", "1:19 now()"},
		{"SELECT current_timestamp AS current_timestamp", "1:8 current_timestamp word"},
		{"SELECT 'é', now()", "1:13 now()"},

		{"SELECT random(), uuid(), gen_random_uuid()", ""},
		{"SELECT t.current_date, u.now FROM t JOIN u USING (k)", ""},
		{"SELECT 'now()', now, \"now\", today FROM t -- now()", ""},
		{"SELECT d AS current_date FROM t ORDER BY current_date", ""},
		{"WITH x(current_date) AS (SELECT 1) SELECT current_date FROM x", ""},
		{"SELECT current_date FROM (VALUES (1)) v(current_date)", ""},
		{"SELECT known() FROM (SELECT 1)", ""},
		{"SELECT other.now() FROM t", ""},
	} {
		a, _ := ok(t, &protocol.Order{Op: protocol.OpTables, Queries: []protocol.Query{{Name: "q", SQL: c.sql}}})
		if a.Tables[0].Error != nil {
			t.Errorf("%s: %v", c.sql, a.Tables[0].Error)
			continue
		}
		var got []string
		for _, r := range a.Tables[0].Clock {
			text := fmt.Sprintf("%d:%d %s", r.Line, r.Column, r.Name)
			if r.Word {
				text += " word"
			}
			got = append(got, text)
		}
		if have := strings.Join(got, ", "); have != c.want {
			t.Errorf("%s\nreads the clock at %q, want %q", c.sql, have, c.want)
		}
	}
}
