package rowhash

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"

	_ "github.com/duckdb/duckdb-go/v2"
)

func connect(t testing.TB) *sql.Conn {
	t.Helper()
	db, err := sql.Open("duckdb", "")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := db.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); db.Close() })
	if err := Register(context.Background(), conn); err != nil {
		t.Fatal(err)
	}
	return conn
}

func number(t testing.TB, conn *sql.Conn, expr string) uint64 {
	t.Helper()
	var n uint64
	if err := conn.QueryRowContext(context.Background(), "SELECT "+expr).Scan(&n); err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	return n
}

// The hash is a format: another value moves the cuts of every table.
func TestHashIsFixed(t *testing.T) {
	conn := connect(t)
	for args, want := range map[string]uint64{
		"1":                          0xe4d971771b652c20,
		"1, 2":                       0x64b174495128d35e,
		"NULL":                       0xc012a927c11ab70f,
		"'a'":                        0x2971c9ebfb09c2ca,
		"'hello world, how are you'": 0xf3f38a182a3b79c7,
		"1.0::DOUBLE":                0xbcabcb2a8dae6591,
		"[1, 2, NULL]":               0xcb08851fa626cf8d,
		"{'a': 1, 'b': 'x'}":         0xa975d49730d72467,
		"INTERVAL 1 DAY":             0x45cec29cd9a24e4b,
	} {
		if have := number(t, conn, Hash+"("+args+")"); have != want {
			t.Errorf("%s: %#x, want %#x", args, have, want)
		}
	}
	if have, want := addBytes(seed, []byte("hello world, how are you")), uint64(0xf3f38a182a3b79c7); have != want {
		t.Errorf("addBytes: %#x, want %#x", have, want)
	}
}

// Values that are one key have one hash, and a wider type changes nothing; other values have others.
func TestHashFollowsEquality(t *testing.T) {
	conn := connect(t)
	for _, equal := range [][]string{
		{"1::TINYINT", "1::SMALLINT", "1::INTEGER", "1::BIGINT", "1::HUGEINT", "1::UTINYINT", "1::USMALLINT", "1::UINTEGER", "1::UBIGINT", "true"},
		{"-1::TINYINT", "-1::BIGINT", "-1::HUGEINT"},
		{"1.25::DECIMAL(4,2)", "1.25::DECIMAL(9,2)", "1.25::DECIMAL(18,2)", "1.25::DECIMAL(38,2)"},
		{"1.5::FLOAT", "1.5::DOUBLE"},
		{"'nan'::DOUBLE", "-('nan'::DOUBLE)", "'nan'::FLOAT"},
		{"0.0::DOUBLE", "-0.0::DOUBLE", "'-0'::FLOAT"},
		{"[1, 2, NULL]", "[1, 2, NULL]::INTEGER[3]"},
		{"'x'", "'x'::BLOB"},
		{"NULL", "NULL::VARCHAR", "NULL::INTEGER[]", "NULL::STRUCT(a INTEGER)"},
	} {
		first := number(t, conn, Hash+"("+equal[0]+")")
		for _, other := range equal[1:] {
			if number(t, conn, Hash+"("+other+")") != first {
				t.Errorf("%s and %s have different hashes", equal[0], other)
			}
		}
	}
	for _, different := range [][]string{ // of one type each
		{"0", "1", "-1", "NULL::INTEGER", "170141183460469231731687303715884105727::HUGEINT"},
		{"1, NULL", "NULL, 1", "1, 2", "2, 1"},
		{"''", "'a'", "'b'", "'abcdefgh'", "'abcdefgh' || chr(0)", "'abcdefg'", "'abcdefghabcdefgh'"},
		{"'a', 'b'", "'ab', ''", "'', 'ab'"},
		{"[]::INTEGER[]", "[NULL]::INTEGER[]", "[1]", "[1, 2]", "[2, 1]", "NULL::INTEGER[]"},
		{"[[1], [2]]", "[[1, 2], []]", "[[], [1, 2]]"},
		{"MAP{'a': 1}", "MAP{'a': 2}", "MAP{'b': 1}"},
		{"{'a': 1, 'b': 2}", "{'a': 2, 'b': 1}", "{'a': NULL, 'b': 1}"},
		{"0.1::DOUBLE", "0.0::DOUBLE", "'infinity'::DOUBLE", "'nan'::DOUBLE"},
		{"INTERVAL 1 MONTH", "INTERVAL 30 DAY", "INTERVAL 720 HOUR"},
	} {
		seen := make(map[uint64]string)
		for _, args := range different {
			h := number(t, conn, Hash+"("+args+")")
			if other, ok := seen[h]; ok {
				t.Errorf("%s and %s have one hash", args, other)
			}
			seen[h] = args
		}
		if n := number(t, conn, "count(DISTINCT d) FROM (SELECT "+Digest+"("+strings.Join(different, ") AS d UNION ALL SELECT "+Digest+"(")+") AS d)"); n != uint64(len(different)) {
			t.Errorf("%v have %d digests", different, n)
		}
	}
	for _, pair := range [][2]string{{"0.0::DOUBLE", "-0.0::DOUBLE"}, {"0.0::FLOAT", "-0.0::FLOAT"}, {"[0.0::DOUBLE]", "[-0.0::DOUBLE]"}} {
		if number(t, conn, "("+Digest+"("+pair[0]+") = "+Digest+"("+pair[1]+"))::UBIGINT") == 1 {
			t.Errorf("%s and %s have one digest", pair[0], pair[1])
		}
	}
	if number(t, conn, "("+Digest+"('nan'::DOUBLE) = "+Digest+"(-('nan'::DOUBLE)))::UBIGINT") != 1 {
		t.Error("two NaNs have two digests")
	}
	if number(t, conn, Exact+"(0.0::DOUBLE)") == number(t, conn, Exact+"(-0.0::DOUBLE)") {
		t.Error("0.0 and -0.0 are the same to Exact")
	}
	if number(t, conn, Exact+"([0.0::DOUBLE])") == number(t, conn, Exact+"([x]) FROM (SELECT -0.0::DOUBLE AS x)") {
		t.Error("0.0 and -0.0 in a list are the same to Exact")
	}
}

// However a vector reaches the function (constant, by dictionary, sliced, nested),
// a row has the same hash.
func TestHashOfAnyVector(t *testing.T) {
	conn := connect(t)
	ctx := context.Background()
	const columns = "i, s, l, st, m, d, n"
	make := `CREATE TABLE t AS SELECT i, CASE WHEN i % 7 = 0 THEN NULL ELSE 'text ' || (i % 50) || repeat('x', i % 20) END AS s,
		CASE WHEN i % 5 = 0 THEN NULL ELSE [i, NULL, i % 3] END AS l, {'a': i % 4, 'b': ['q' || (i % 9), NULL]} AS st,
		MAP{'k' || (i % 3): [i % 2]} AS m, (i % 11)::DOUBLE AS d, 1 AS n FROM range(50000) r(i)`
	if _, err := conn.ExecContext(ctx, make); err != nil {
		t.Fatal(err)
	}
	want := number(t, conn, "bit_xor("+Hash+"("+columns+")) FROM t")
	file := t.TempDir() + "/t.parquet"
	if _, err := conn.ExecContext(ctx, "COPY t TO '"+file+"'"); err != nil {
		t.Fatal(err)
	}
	for name, from := range map[string]string{
		"a file":       "FROM '" + file + "'",
		"a union":      "FROM (SELECT * FROM t WHERE i % 3 = 1 UNION ALL SELECT * FROM t WHERE i % 3 <> 1)",
		"a sort":       "FROM (SELECT * FROM t ORDER BY s, i)",
		"a join":       "FROM (SELECT t.* FROM range(50000) r(j) JOIN t ON i = j)",
		"groups":       "FROM (SELECT i, any_value(s) AS s, any_value(l) AS l, any_value(st) AS st, any_value(m) AS m, any_value(d) AS d, any_value(n) AS n FROM t GROUP BY i)",
		"unnested":     "FROM (SELECT x.* FROM (SELECT unnest(list(t)) AS x FROM t))",
		"row by row":   "FROM (SELECT * FROM t WHERE i < 25000 UNION ALL SELECT * FROM t WHERE i >= 25000 AND i % 2 = 0 UNION ALL SELECT * FROM t WHERE i >= 25000 AND i % 2 = 1)",
		"a dictionary": "FROM (SELECT t.* FROM (SELECT unnest([0, 1]) AS half) JOIN t ON i % 2 = half)",
	} {
		if have := number(t, conn, "bit_xor("+Hash+"("+columns+")) "+from); have != want {
			t.Errorf("%s: hashes differ", name)
		}
		digests := "(SELECT hash(list(d ORDER BY d)) FROM (SELECT " + Digest + "(" + columns + ") AS d "
		if have, want := number(t, conn, digests+from+"))"), number(t, conn, digests+"FROM t))"); have != want {
			t.Errorf("%s: digests differ", name)
		}
		if have, want := number(t, conn, "sum("+Bytes+"("+columns+"))::UBIGINT "+from), number(t, conn, "sum("+Bytes+"("+columns+"))::UBIGINT FROM t"); have != want {
			t.Errorf("%s: bytes are %d, want %d", name, have, want)
		}
	}
}

func TestRefusesWhatItCannotHash(t *testing.T) {
	conn := connect(t)
	var h uint64
	if err := conn.QueryRowContext(context.Background(), "SELECT "+Hash+"(1::VARIANT)").Scan(&h); err == nil {
		t.Fatal("a VARIANT was hashed")
	}
}

// One row in n is below the largest hash divided by n, whatever the rows are like.
func TestHashIsUniform(t *testing.T) {
	conn := connect(t)
	for _, args := range []string{"i", "i * 1000", "i / 10.0", "'flight ' || i", "i % 1000, i // 1000", "[i]", "DATE '2001-01-01' + i::INTEGER"} {
		n := number(t, conn, fmt.Sprintf("count(*) FILTER (WHERE %s(%s) < 18446744073709551615 // 4096) FROM range(1000000) r(i)", Hash, args))
		// 244 are expected, with a standard deviation of 16.
		if n < 180 || n > 310 {
			t.Errorf("%s: %d of a million rows, want about 244", args, n)
		}
	}
}

func BenchmarkHash(b *testing.B) {
	conn := connect(b)
	if _, err := conn.ExecContext(context.Background(), "CREATE TABLE t AS SELECT i, i % 365 AS d, 'A' || (i % 300) AS s, i / 7.0 AS x FROM range(1000000) r(i)"); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for range b.N {
		number(b, conn, "max("+Hash+"(i, d, s, x)) FROM t")
	}
	b.ReportMetric(float64(b.N)*1e6/b.Elapsed().Seconds()/1e6, "Mrows/s")
}
