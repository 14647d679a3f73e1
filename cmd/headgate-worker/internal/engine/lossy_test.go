package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	pq "github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/deprecated"

	"github.com/headgate/headgate/exec/protocol"
)

// foreign writes a Parquet file with types that DuckDB does not write.
func foreign[T any](t *testing.T, rows []T, options ...pq.WriterOption) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "foreign.parquet")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := pq.NewGenericWriter[T](f, options...)
	if _, err := w.Write(rows); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func day(nanos int64) deprecated.Int96 { // of 1970
	return deprecated.Int96{uint32(nanos), uint32(nanos >> 32), 2440588}
}

// What DuckDB would round is refused, by an import and for a part that is there,
// and what only could have been is taken.
func TestNothingIsRounded(t *testing.T) {
	type zoned struct {
		ID int64 `parquet:"id"`
		T  int64 `parquet:"when,optional,timestamp(nanosecond)"`
	}
	type old struct {
		T deprecated.Int96 `parquet:"when"`
	}
	type nested struct {
		L []zoned `parquet:"l,list"`
	}
	type wide struct {
		D [21]byte `parquet:"d"`
	}
	const nanos = `column "when" has nanoseconds, which a table holds in timestamps without a zone only (TIMESTAMP_NS): write it as such, or in microseconds`
	for _, tc := range []struct{ name, path, want string }{
		{"zone", foreign(t, []zoned{{1, 1000}, {2, 1_700_000_000_123_456_789}}), nanos},
		{"zone, whole", foreign(t, []zoned{{1, 1000}, {2, -1_700_000_000_123_456_000}}), ""},
		{"before 1970", foreign(t, []zoned{{1, -1}}), nanos},
		{"INT96", foreign(t, []old{{day(0)}, {day(86_399_999_999_999)}}), nanos},
		{"INT96, whole", foreign(t, []old{{day(86_399_999_999_000)}}), ""},
		{"in a list", foreign(t, []nested{{}, {[]zoned{{1, 1000}, {1, 1001}}}}), strings.Replace(nanos, "when", "l", 1)},
		{"digits", foreign(t, []wide{{}}, pq.NewSchema("t", pq.Group{"d": pq.Decimal(2, 50, pq.FixedLenByteArrayType(21))})),
			`column "d" is DECIMAL(50,2), and a table holds at most 38 digits: write fewer digits, or text`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, order := range []*protocol.Order{
				{Op: protocol.OpCut, FileFormat: "parquet", Files: []string{tc.path}},
				{Op: protocol.OpDescribe, Inputs: []protocol.Table{{Name: "t", Files: []string{tc.path}}}},
			} {
				a, _ := do(t, order)
				have := ""
				if a.Error != nil {
					have = a.Error.Message
				}
				want := tc.want
				if want != "" {
					want = tc.path + ": " + want
				}
				if have != want {
					t.Errorf("%s: error %q, want %q", order.Op, have, want)
				}
			}
		})
	}
}

// DuckDB has no text for the first day of TIMESTAMP_NS.
func TestBoundsThatHaveNoText(t *testing.T) {
	a, _ := ok(t, &protocol.Order{Op: protocol.OpCut, FileFormat: "parquet", KeepOrder: true,
		Files: []string{write(t, "SELECT make_timestamp_ns(x) AS t, [make_timestamp_ns(x)] AS l FROM unnest([-9223372036000000000, 5]) u(x)", "")}})
	if s := a.Snapshot.Parts[0].Stats[0]; s.Min != nil || s.Max != nil || s.Nulls != 0 {
		t.Errorf("bounds %s and %s, want none", s.Min, s.Max)
	}
	again, _ := ok(t, &protocol.Order{Op: protocol.OpCut, FileFormat: "parquet", // sorted by the text of lists, too
		Files: []string{write(t, "SELECT [make_timestamp_ns(x)] AS l FROM unnest([-9223372036000000000, 5]) u(x)", "")}})
	if again.Rows != 2 {
		t.Errorf("%d rows", again.Rows)
	}
}
