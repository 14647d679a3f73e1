package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/headgate/headgate/exec/protocol"
	"github.com/headgate/headgate/exec/sandbox"
)

// The data is made after TPC-H: its tables, columns, numbers of rows, keys and
// ranges of values. Values are hashes of keys, so that every machine has the same,
// and DuckDB's extension that makes the original need not be there.

// pick chooses one of some words by a hash.
func pick(hash string, words ...string) string {
	return fmt.Sprintf("list_extract(['%s'], 1 + CAST(%s %% %d AS INTEGER))", strings.Join(words, "', '"), hash, len(words))
}

// number is a hash below n.
func number(hash string, n int) string { return fmt.Sprintf("CAST(%s %% %d AS INTEGER)", hash, n) }

// prose is about 27 characters for each three words.
func prose(key string, words int) string {
	var list []string
	for i := range words {
		list = append(list, pick(fmt.Sprintf("hash(%s, 'w%d')", key, i),
			"carefully", "final", "deposits", "quickly", "requests", "special", "accounts", "sleep", "furiously", "ideas", "pending", "theodolites"))
	}
	return "concat_ws(' ', " + strings.Join(list, ", ") + ")"
}

// tpchTable is how one table is made, in parts.
type tpchTable struct {
	name  string
	rows  int // of the range that sql counts through, at scale 1
	parts int
	sql   string // of range, whose bounds are the two verbs
}

var tpchTables = []tpchTable{
	{"region", 5, 1, "SELECT range AS r_regionkey, list_extract(['AFRICA', 'AMERICA', 'ASIA', 'EUROPE', 'MIDDLE EAST'], 1 + range) AS r_name FROM range(%d, %d)"},
	{"nation", 25, 1, "SELECT range AS n_nationkey, 'NATION ' || range AS n_name, range % 5 AS n_regionkey FROM range(%d, %d)"},
	{"supplier", 10_000, 1, "SELECT range AS s_suppkey, 'Supplier ' || range AS s_name, " + number("hash(range, 'nation')", 25) + " AS s_nationkey, " +
		prose("range", 4) + " AS s_comment FROM range(%d, %d)"},
	{"part", 200_000, 1, "SELECT range AS p_partkey, " + prose("range", 3) + " AS p_name, 'Brand#' || " + number("hash(range, 'brand')", 25) + " AS p_brand, " +
		pick("hash(range, 't1')", "STANDARD", "SMALL", "MEDIUM", "LARGE", "ECONOMY", "PROMO") + " || ' ' || " + pick("hash(range, 't2')", "TIN", "NICKEL", "BRASS", "STEEL", "COPPER") + " AS p_type, " +
		number("hash(range, 'size')", 50) + " AS p_size FROM range(%d, %d)"},
	{"partsupp", 800_000, 1, "SELECT range // 4 AS ps_partkey, (range // 4 * 7 + range % 4 * 2503) % 10000 AS ps_suppkey, " +
		"CAST(" + number("hash(range, 'cost')", 100_000) + " / 100 AS DECIMAL(15, 2)) AS ps_supplycost, " + prose("range", 12) + " AS ps_comment FROM range(%d, %d)"},
	{"customer", 150_000, 1, "SELECT range AS c_custkey, 'Customer#' || range AS c_name, " + number("hash(range, 'nation')", 25) + " AS c_nationkey, " +
		"CAST(" + number("hash(range, 'balance')", 1_100_000) + " / 100 AS DECIMAL(15, 2)) AS c_acctbal, " +
		pick("hash(range, 'segment')", "AUTOMOBILE", "BUILDING", "FURNITURE", "HOUSEHOLD", "MACHINERY") + " AS c_mktsegment, " +
		prose("(range, 'address')", 3) + " AS c_address, " + prose("range", 8) + " AS c_comment FROM range(%d, %d)"},
	{"orders", 1_500_000, 4, "SELECT range AS o_orderkey, " + number("hash(range, 'customer')", 150_000) + " AS o_custkey, " +
		pick("hash(range, 'status')", "F", "O", "P") + " AS o_orderstatus, CAST(" + number("hash(range, 'price')", 50_000_000) + " / 100 AS DECIMAL(15, 2)) AS o_totalprice, " +
		orderDateOf("range") + " AS o_orderdate, " + pick("hash(range, 'priority')", "1-URGENT", "2-HIGH", "3-MEDIUM", "4-NOT SPECIFIED", "5-LOW") + " AS o_orderpriority, " +
		"0 AS o_shippriority, " + prose("range", 6) + " AS o_comment FROM range(%d, %d)"},
	{"lineitem", 1_500_000, 12, "SELECT *, CASE WHEN l_receiptdate > DATE '1995-06-17' THEN 'N' WHEN hash(l_orderkey, l_linenumber) % 2 = 0 THEN 'R' ELSE 'A' END AS l_returnflag, " +
		"CASE WHEN l_shipdate > DATE '1995-06-17' THEN 'O' ELSE 'F' END AS l_linestatus FROM (" +
		"SELECT *, l_shipdate + 1 + " + number("hash(l_orderkey, l_linenumber, 'receipt')", 30) + " AS l_receiptdate, " +
		"CAST(l_quantity * (90000 + l_partkey % 110000) / 100 AS DECIMAL(15, 2)) AS l_extendedprice FROM (" +
		"SELECT o AS l_orderkey, l AS l_linenumber, " + number("hash(o, l, 'part')", 200_000) + " AS l_partkey, " + number("hash(o, l, 'supplier')", 10_000) + " AS l_suppkey, " +
		"CAST(1 + " + number("hash(o, l, 'quantity')", 50) + " AS DECIMAL(15, 2)) AS l_quantity, " +
		"CAST(" + number("hash(o, l, 'discount')", 11) + " / 100 AS DECIMAL(15, 2)) AS l_discount, CAST(" + number("hash(o, l, 'tax')", 9) + " / 100 AS DECIMAL(15, 2)) AS l_tax, " +
		orderDateOf("o") + " + 1 + " + number("hash(o, l, 'ship')", 121) + " AS l_shipdate, " + orderDateOf("o") + " + 30 + " + number("hash(o, l, 'commit')", 61) + " AS l_commitdate, " +
		pick("hash(o, l, 'instruct')", "DELIVER IN PERSON", "COLLECT COD", "NONE", "TAKE BACK RETURN") + " AS l_shipinstruct, " +
		pick("hash(o, l, 'mode')", "REG AIR", "AIR", "RAIL", "SHIP", "TRUCK", "MAIL", "FOB") + " AS l_shipmode, " + prose("(o, l)", 4) + " AS l_comment " +
		"FROM (SELECT range AS o, unnest(range(1, 2 + CAST(hash(range, 'lines') %% 7 AS BIGINT))) AS l FROM range(%d, %d))))"},
}

func orderDateOf(key string) string {
	return fmt.Sprintf("DATE '1992-01-01' + CAST(hash(%s, 'date') %% 2406 AS INTEGER)", key)
}

// tpchQueries are ten of TPC-H's, each for another kind of work.
var tpchQueries = []protocol.Query{
	{Name: "Q1", SQL: `SELECT l_returnflag, l_linestatus, sum(l_quantity), sum(l_extendedprice), sum(l_extendedprice * (1 - l_discount)), sum(l_extendedprice * (1 - l_discount) * (1 + l_tax)), avg(l_quantity), avg(l_extendedprice), avg(l_discount), count(*) FROM lineitem WHERE l_shipdate <= DATE '1998-09-02' GROUP BY ALL ORDER BY ALL`},
	{Name: "Q3", SQL: `SELECT l_orderkey, sum(l_extendedprice * (1 - l_discount)) AS revenue, o_orderdate, o_shippriority FROM customer, orders, lineitem WHERE c_mktsegment = 'BUILDING' AND c_custkey = o_custkey AND l_orderkey = o_orderkey AND o_orderdate < DATE '1995-03-15' AND l_shipdate > DATE '1995-03-15' GROUP BY l_orderkey, o_orderdate, o_shippriority ORDER BY revenue DESC, o_orderdate LIMIT 10`},
	{Name: "Q4", SQL: `SELECT o_orderpriority, count(*) FROM orders WHERE o_orderdate >= DATE '1993-07-01' AND o_orderdate < DATE '1993-10-01' AND EXISTS (SELECT * FROM lineitem WHERE l_orderkey = o_orderkey AND l_commitdate < l_receiptdate) GROUP BY ALL ORDER BY ALL`},
	{Name: "Q5", SQL: `SELECT n_name, sum(l_extendedprice * (1 - l_discount)) AS revenue FROM customer, orders, lineitem, supplier, nation, region WHERE c_custkey = o_custkey AND l_orderkey = o_orderkey AND l_suppkey = s_suppkey AND c_nationkey = s_nationkey AND s_nationkey = n_nationkey AND n_regionkey = r_regionkey AND r_name = 'ASIA' AND o_orderdate >= DATE '1994-01-01' AND o_orderdate < DATE '1995-01-01' GROUP BY n_name ORDER BY revenue DESC`},
	{Name: "Q6", SQL: `SELECT sum(l_extendedprice * l_discount) AS revenue FROM lineitem WHERE l_shipdate >= DATE '1994-01-01' AND l_shipdate < DATE '1995-01-01' AND l_discount BETWEEN 0.05 AND 0.07 AND l_quantity < 24`},
	{Name: "Q9", SQL: `SELECT n_name, year(o_orderdate) AS y, sum(l_extendedprice * (1 - l_discount) - ps_supplycost * l_quantity) FROM part, supplier, lineitem, partsupp, orders, nation WHERE s_suppkey = l_suppkey AND ps_partkey = l_partkey AND p_partkey = l_partkey AND o_orderkey = l_orderkey AND s_nationkey = n_nationkey AND p_name LIKE '%special%' GROUP BY ALL ORDER BY n_name, y DESC`},
	{Name: "Q10", SQL: `SELECT c_custkey, c_name, sum(l_extendedprice * (1 - l_discount)) AS revenue, c_acctbal, n_name, c_address, c_comment FROM customer, orders, lineitem, nation WHERE c_custkey = o_custkey AND l_orderkey = o_orderkey AND o_orderdate >= DATE '1993-10-01' AND o_orderdate < DATE '1994-01-01' AND l_returnflag = 'R' AND c_nationkey = n_nationkey GROUP BY ALL ORDER BY revenue DESC LIMIT 20`},
	{Name: "Q12", SQL: `SELECT l_shipmode, count(*) FILTER (o_orderpriority IN ('1-URGENT', '2-HIGH')), count(*) FILTER (o_orderpriority NOT IN ('1-URGENT', '2-HIGH')) FROM orders, lineitem WHERE o_orderkey = l_orderkey AND l_shipmode IN ('MAIL', 'SHIP') AND l_commitdate < l_receiptdate AND l_shipdate < l_commitdate AND l_receiptdate >= DATE '1994-01-01' AND l_receiptdate < DATE '1995-01-01' GROUP BY ALL ORDER BY ALL`},
	{Name: "Q14", SQL: `SELECT 100.0 * sum(l_extendedprice * (1 - l_discount)) FILTER (p_type LIKE 'PROMO%') / sum(l_extendedprice * (1 - l_discount)) FROM lineitem, part WHERE l_partkey = p_partkey AND l_shipdate >= DATE '1995-09-01' AND l_shipdate < DATE '1995-10-01'`},
	{Name: "Q18", SQL: `SELECT c_name, c_custkey, o_orderkey, o_orderdate, o_totalprice, sum(l_quantity) FROM customer, orders, lineitem WHERE o_orderkey IN (SELECT l_orderkey FROM lineitem GROUP BY l_orderkey HAVING sum(l_quantity) > 250) AND c_custkey = o_custkey AND o_orderkey = l_orderkey GROUP BY ALL ORDER BY o_totalprice DESC, o_orderdate LIMIT 100`},
}

// tpchFiles makes what is missing of the data, and returns the files of each table.
func (b *bench) tpchFiles(ctx context.Context) (map[string][]string, error) {
	dir := filepath.Join(b.cache, fmt.Sprintf("tpch-%g", b.scale))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	files := make(map[string][]string)
	for _, t := range tpchTables {
		rows := t.rows
		if rows > 100 {
			rows = int(float64(rows) * b.scale)
		}
		for i := range t.parts {
			file := filepath.Join(dir, fmt.Sprintf("%s-%02d.parquet", t.name, i))
			sql := strings.Replace(t.sql, "range(%d, %d)", fmt.Sprintf("range(%d, %d)", rows*i/t.parts, rows*(i+1)/t.parts), 1)
			if err := b.makeParquet(ctx, strings.ReplaceAll(sql, "%%", "%"), file); err != nil {
				return nil, fmt.Errorf("make %s: %w", filepath.Base(file), err)
			}
			files[t.name] = append(files[t.name], file)
		}
	}
	return files, nil
}

// named tells whether a statement has a table's name as a word.
func named(sql, table string) bool {
	return slices.Contains(strings.FieldsFunc(sql, func(r rune) bool { return r != '_' && !unicode.IsLetter(r) }), table)
}

// settle is how long a warm sandbox has waited at least, as one of a server that is
// not busy refilling its pool has: in its first second, until gVisor has measured
// the processor's clock, each look at the clock is a call into gVisor's kernel.
const settle = 1500 * time.Millisecond

// queries compares DuckDB's time for each query in a sandbox with its time in a
// process of the same program with the same limits.
func (b *bench) queries(ctx context.Context) error {
	const (
		threads = 2
		memory  = 4 << 30
		repeat  = 3
	)
	files, err := b.tpchFiles(ctx)
	if err != nil {
		return err
	}
	temp, err := os.MkdirTemp(b.cache, "spill-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	// As in a server, which has a dozen, another one waits beside the one that is
	// measured, so that no processor starts a new one meanwhile.
	m, state, err := b.open(ctx, 2, 0)
	if err != nil {
		return err
	}
	defer func() { _, _ = m.Close(), os.RemoveAll(state) }()
	var sumIn, sumOut time.Duration
	var detail []string
	for _, q := range tpchQueries {
		job := sandbox.Job{Kind: sandbox.KindWorker, Limits: sandbox.Limits{CPUs: threads, Memory: memory + memory/2}}
		order := protocol.Order{Op: protocol.OpQuery, SQL: q.SQL, Format: "csv", Threads: threads, MemoryLimit: memory}
		within, without := order, order
		without.TempDir = temp
		for _, t := range tpchTables {
			if !named(q.SQL, t.name) {
				continue // the gate, too, gives a function the tables that it reads and no other
			}
			var names []string
			for _, f := range files[t.name] {
				name := filepath.Join(t.name, filepath.Base(f))
				names = append(names, filepath.Join("/in", name))
				job.Inputs = append(job.Inputs, link(name, f))
			}
			within.Inputs = append(within.Inputs, protocol.Table{Name: t.name, Files: names})
			without.Inputs = append(without.Inputs, protocol.Table{Name: t.name, Files: files[t.name]})
		}
		job.Order = &within
		var in, out []time.Duration
		for range repeat {
			if err := m.AwaitWarm(ctx); err != nil {
				return err
			}
			time.Sleep(settle)
			o, _, err := inside(ctx, m, job, true)
			if err != nil {
				return fmt.Errorf("%s: %w", q.Name, err)
			}
			in = append(in, o.total)
			if err := m.AwaitWarm(ctx); err != nil { // nor while the other side is measured
				return err
			}
			if o, err = outside(ctx, program{args: []string{b.worker}, dir: temp, wait: true}, &without, discard); err != nil {
				return fmt.Errorf("%s: %w", q.Name, err)
			}
			out = append(out, o.total)
		}
		sumIn, sumOut = sumIn+median(in), sumOut+median(out)
		detail = append(detail, fmt.Sprintf("%s %.2f", q.Name, ms(median(in))/ms(median(out))))
	}
	b.add(figure{
		Name: fmt.Sprintf("TPC-H-like queries, scale %g", b.scale), Inside: ms(sumIn), Outside: ms(sumOut), Unit: "ms",
		Value: ms(sumIn) / ms(sumOut), Of: "ratio", Target: 1.25, Detail: strings.Join(detail, ", "),
	})
	return nil
}
