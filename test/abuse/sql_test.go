package abuse

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/sandbox"
)

// sqlTries are queries of verifiers; all run in one sandbox. sees is their error.
var sqlTries = []try{
	{"SQL: read a file as text", `SELECT * FROM read_text('/etc/passwd')`, "table function read_text is not allowed.*", nil},
	{"SQL: read a file as CSV", `SELECT * FROM read_csv('/etc/passwd', sep = ':')`, "table function read_csv is not allowed.*", nil},
	{"SQL: read a file in a subquery", `SELECT n, (SELECT content FROM read_text('/etc/passwd')) FROM t`, "table function read_text is not allowed.*", nil},
	{"SQL: read a file in a common table expression", `WITH x AS (FROM read_csv('/etc/passwd')) SELECT * FROM x`, "table function read_csv is not allowed.*", nil},
	{"SQL: summarize a file", `SUMMARIZE '/etc/passwd.csv'`, ".* is a file: queries read the tables of the commit.*", nil},
	{"SQL: read a file by query_table", `SELECT * FROM query_table('/etc/passwd.csv')`, "table function query_table is not allowed.*", nil},
	{"SQL: read a file in a lateral join", `SELECT * FROM t, LATERAL (SELECT * FROM read_text('/etc/' || n))`, "table function read_text is not allowed.*", nil},
	{"SQL: read a file by its name", `SELECT * FROM '/etc/passwd.csv'`, ".* is a file: queries read the tables of the commit.*", nil},
	{"SQL: read the worker's environment", `SELECT * FROM read_blob('/proc/self/environ')`, "table function read_blob is not allowed.*", nil},
	{"SQL: list files", `SELECT * FROM glob('/**')`, "table function glob is not allowed.*", nil},
	{"SQL: sniff a file", `SELECT * FROM sniff_csv('/etc/passwd')`, "table function sniff_csv is not allowed.*", nil},
	{"SQL: read a Parquet file's footer", `SELECT * FROM parquet_metadata('/headgate-worker')`, "table function parquet_metadata is not allowed.*", nil},
	{"SQL: read an environment variable", `SELECT getenv('HEADGATE_ABUSE_SECRET')`, ".*getenv does not exist.*", nil},
	{"SQL: read from the network", `SELECT * FROM read_parquet('https://192.0.2.1/x.parquet')`, "table function read_parquet is not allowed.*", nil},
	{"SQL: read from S3", `SELECT * FROM 's3://bucket/x.parquet'`, ".* is a file: queries read the tables of the commit.*", nil},
	{"SQL: climb out of an input", `SELECT * FROM read_text('/in/0/../../etc/passwd')`, "table function read_text is not allowed.*", nil},
	{"SQL: attach a database", `ATTACH '/tmp/pwned.db'`, "only a SELECT is allowed here, not ATTACH", nil},
	{"SQL: copy to a file", `COPY (SELECT 1) TO '/tmp/pwned.csv'`, "only a SELECT is allowed here, not COPY", nil},
	{"SQL: copy from a file", `COPY t FROM '/etc/passwd'`, "only a SELECT is allowed here, not COPY", nil},
	{"SQL: install an extension", `INSTALL httpfs`, "only a SELECT is allowed here, not INSTALL", nil},
	{"SQL: load an extension", `LOAD '/tmp/pwned.duckdb_extension'`, "only a SELECT is allowed here, not LOAD", nil},
	{"SQL: allow access again", `SET enable_external_access = true`, "only a SELECT is allowed here, not SET", nil},
	{"SQL: allow access again by a pragma", `PRAGMA enable_external_access = true`, "only a SELECT is allowed here, not PRAGMA", nil},
	{"SQL: unlock the configuration", `SET lock_configuration = false`, "only a SELECT is allowed here, not SET", nil},
	{"SQL: two statements", `SELECT 1; COPY (SELECT 1) TO '/tmp/pwned.csv'`, "there is more than one statement.*", nil},
	{"SQL: break out of the statement around it", `SELECT 1) TO '/tmp/pwned.csv' (FORMAT csv); --`, ".*syntax error.*", nil},
	{"SQL: write in a query", `SELECT * FROM query('COPY (SELECT 1) TO ''/tmp/pwned.csv''')`, "table function query is not allowed.*", nil},
	{"SQL: write a log file", `SELECT * FROM enable_logging(storage = 'file', storage_path = '/tmp/pwned')`, "table function enable_logging is not allowed.*", nil},
	{"SQL: read the secrets", `SELECT * FROM duckdb_secrets()`, "table function duckdb_secrets is not allowed.*", nil},
	{"SQL: change an input", `INSERT INTO t VALUES (1)`, "only a SELECT is allowed here, not INSERT", nil},
	{"SQL: export the database", `EXPORT DATABASE '/tmp/pwned'`, "only a SELECT is allowed here, not EXPORT", nil},
	{"SQL: a table that was not declared", `SELECT * FROM salaries`, ".*salaries does not exist.*", nil},
	{"SQL: nest without end", `SELECT ` + strings.Repeat("(", 50_000) + "1" + strings.Repeat(")", 50_000), ".*memory exhausted.*", nil},
}

// TestSQL gives all of them to one worker.
func TestSQL(t *testing.T) {
	order := lab.order("")
	order.Op, order.Path, order.Module = protocol.OpVerify, "", ""
	for i, c := range sqlTries {
		order.Queries = append(order.Queries, protocol.Query{Name: fmt.Sprintf("q%d", i), SQL: c.code})
	}
	r := lab.run(t, sandbox.Job{Kind: sandbox.KindWorker, Order: order, Inputs: lab.inputs()})
	if r.Answer == nil || len(r.Answer.Checks) != len(sqlTries) {
		t.Fatalf("%+v %v\n%s", r.Report, r.userError(), r.log)
	}
	for i, c := range sqlTries {
		check := r.Answer.Checks[i]
		if check.Error == nil {
			t.Errorf("%s: no error; it found %d rows: %v", c.name, check.Violations, check.Sample)
		} else if !regexp.MustCompile(`(?s)^(?:` + c.sees + `)$`).MatchString(check.Error.Message) {
			t.Errorf("%s: %.300q, want %q", c.name, check.Error.Message, c.sees)
		}
	}
	r.recorded(t)
}

// sqlDeeds are models and queries that take more than they may.
var sqlDeeds = []deed{
	{"SQL: recursion without end", `WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT count(*) AS n FROM r`, shortTime, timedOut, nil},
	{"SQL: a product of products", `SELECT sum(a.range * b.range) AS n FROM range(10000000) a, range(10000000) b`, shortTime, timedOut, nil},
	{"SQL: a giant list", `SELECT list(range) AS n FROM range(1000000000)`, small, noMemory, nil},
	{"SQL: a giant text", `SELECT repeat('x', 4000000000) AS n`, small, noMemory, nil},
	{"SQL: a text of texts", `SELECT repeat(repeat('x', 100000), 100000) AS n`, small, saying("Cannot create a string"), nil},
	{"SQL: a giant series", `SELECT unnest(generate_series(1, 10000000000)) AS n`, small, saying("Lists larger"), nil},
	{"SQL: a result larger than the disk", `SELECT range AS n, md5(range::VARCHAR) AS m FROM range(100000000)`, small, noMemory, nil},
	{"SQL: an expression deeper than the stack", `SELECT ` + strings.Repeat("1+", 200_000) + `1 AS n`, small, saying("expression depth"), nil},
}

func TestSQLExhaustion(t *testing.T) {
	for _, d := range sqlDeeds {
		t.Run(d.name, func(t *testing.T) {
			order := lab.order("")
			order.Op, order.Path, order.Module, order.SQL = protocol.OpModel, "", "", d.code
			order.MemoryLimit = d.limits.Memory * 6 / 10
			lim := d.limits
			if lim.Timeout == 0 {
				lim.Timeout = 20e9
			}
			r := lab.run(t, sandbox.Job{Kind: sandbox.KindWorker, Order: order, Inputs: lab.inputs(), Limits: lim})
			if err := d.ends(r); err != nil {
				t.Errorf("%v: %+v, error %q\n%.2000s", err, r.Report, r.userError(), r.log)
			}
			r.recorded(t, d.recorded...)
		})
	}
}

// TestSQLFilter is about the one expression of SQL that a Python model has: the
// filter of an input.
func TestSQLFilter(t *testing.T) {
	for _, c := range filterTries {
		order := lab.order("")
		order.Op, order.Path, order.Module, order.SQL, order.Format = protocol.OpQuery, "", "", "SELECT * FROM t", "parquet"
		order.Inputs[0].Filter = c.code
		r := lab.run(t, sandbox.Job{Kind: sandbox.KindWorker, Order: order, Inputs: lab.inputs()})
		if !regexp.MustCompile(`(?s)^(?:` + c.sees + `)$`).MatchString(r.userError()) {
			t.Errorf("%s: %q, want %q", c.name, r.userError(), c.sees)
		}
		r.recorded(t)
	}
}

var filterTries = []try{
	{"SQL: read a file in the filter of an input", `n < (SELECT count(*) FROM read_text('/etc/passwd'))`, ".*table function read_text is not allowed.*", nil},
	{"SQL: break out of the filter of an input", `true) UNION ALL SELECT 1 FROM read_text('/etc/passwd') WHERE (true`, ".*syntax error.*", nil},
}
