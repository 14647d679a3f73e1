package engine

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/headgate/headgate/cmd/headgate-worker/internal/rowhash"
	"github.com/headgate/headgate/exec/protocol"
)

// rowsTable holds a result between its query and its parts. It is no temporary
// table, because parts are written by several connections.
const (
	rowsName  = "rows to store"
	rowsTable = `memory.main."` + rowsName + `"`
)

// Options of COPY: bytes depend on the rows and on DuckDB's version only. A part
// has one row group: DuckDB sizes the row groups of a file by how rows reach it, so
// with more than one the bytes would depend on threads and on the layout of the sources.
const (
	// Level 1: a higher one takes longer to set up for so few rows than it has them to compress.
	partOptions = "FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, ROW_GROUP_SIZE 1048576"
	// plainOptions are of a part with -0.0: DuckDB's dictionaries hold one of the
	// values that SQL calls equal, whichever comes first.
	plainOptions = partOptions + ", DICTIONARY_SIZE_LIMIT 0"
)

// resolveKey returns the key's columns as the result spells them.
func resolveKey(key []string, columns []protocol.Column) ([]string, error) {
	var resolved []string
	for _, k := range key {
		found := ""
		for _, c := range columns {
			if strings.EqualFold(c.Name, k) {
				found = c.Name
			}
		}
		if found == "" {
			return nil, dataError("key column %q is not in the result, which has %s", k, nameList(columnNames(columns)))
		}
		resolved = append(resolved, found)
	}
	return resolved, nil
}

// sendParts cuts rowsTable into parts in its order, sends them, and describes
// them. There is one part even without rows: it carries the schema to any reader.
func (e *execution) sendParts(ctx context.Context, key []string) (*protocol.Answer, error) {
	if err := e.checkKey(ctx, key); err != nil {
		return nil, err
	}
	c := &cutter{execution: e}
	if err := c.cut(ctx, rowsTable, "*", key, true); err != nil {
		return nil, err
	}
	return c.answer(key), nil
}

// cutter sends tables of the database as parts of one snapshot, one after the other.
type cutter struct {
	*execution
	sent     int // files so far
	snapshot protocol.Snapshot
	rows     int64
}

// cut sends the columns in list of a table, in the order of its rows. always
// asks for a part even if there are no rows.
func (c *cutter) cut(ctx context.Context, from, list string, key []string, always bool) error {
	columns, err := c.db.describeQuery(ctx, "SELECT "+list+" FROM "+from)
	if err != nil {
		return err
	}
	var total int64
	if err := c.db.conn.QueryRowContext(ctx, "SELECT count(*) FROM "+from).Scan(&total); err != nil {
		return err
	}
	hashed := key
	if len(hashed) == 0 {
		hashed = columnNames(columns)
	}
	chunks, err := c.chunks(ctx, from, "rowid", hashed, columns)
	if err != nil {
		return err
	}
	ends := chunks.finish(total)
	if len(ends) == 0 && always {
		ends = []int64{0}
	}
	if err := c.send(ctx, from, list, columns, ends); err != nil {
		return err
	}
	c.rows += total
	return nil
}

// part is one part on its way from the table to the answer.
type part struct {
	name, path string
	columns    []protocol.Column // as a reader of the file sees them
	rows       int64
	stats      []protocol.ColumnStats
}

// batchParts is how many parts one connection makes at a time: what is asked of the
// table is then asked once for all of them, which costs as much as asking for one.
const batchParts = 8

// batch is a range of a table's rows, and where its parts end in there.
type batch struct {
	table, list string
	first       int // number of its first part
	start       int64
	ends        []int64
	parts       chan part // with room for all of them
}

// rows selects from the rows of parts i up to j.
func (b *batch) rows(list string, i, j int) string {
	start := b.start
	if i > 0 {
		start = b.ends[i-1]
	}
	return fmt.Sprintf("SELECT %s FROM %s WHERE rowid >= %d AND rowid < %d", list, b.table, start, b.ends[j-1])
}

// size returns the number of rows of part i.
func (b *batch) size(i int) int64 {
	if i == 0 {
		return b.ends[0] - b.start
	}
	return b.ends[i] - b.ends[i-1]
}

// grouped selects all rows, with the number of each one's part in groupColumn.
func (b *batch) grouped(list string) string {
	var number strings.Builder
	number.WriteString("CASE")
	for i, end := range b.ends {
		fmt.Fprintf(&number, " WHEN rowid < %d THEN %d", end, i)
	}
	return b.rows(number.String()+" END AS "+groupColumn+", "+list, 0, len(b.ends))
}

// send writes parts on as many connections as there are threads, since one part
// keeps one thread busy, and sends them in order.
func (c *cutter) send(ctx context.Context, from, list string, columns []protocol.Column, ends []int64) (err error) {
	restore, err := c.db.onThreadsOfTheirOwn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, restore()) }()
	ctx, stop := context.WithCancel(ctx)
	g, ctx := errgroup.WithContext(ctx)
	// On every way out: nobody may use a connection when this returns.
	defer func() {
		stop()
		_ = g.Wait()
	}()
	queue := make(chan *batch)
	free := make(chan *sql.Conn, len(c.db.writers))
	for _, conn := range c.db.writers {
		free <- conn
	}
	g.Go(func() error {
		defer close(queue)
		b := &batch{table: from, list: list, first: c.sent}
		for rest := ends; len(rest) > 0; {
			n := min(batchParts, len(rest))
			b.ends, rest = rest[:n], rest[n:]
			b.parts = make(chan part, n)
			var conn *sql.Conn
			select {
			case conn = <-free:
			case <-ctx.Done():
				return ctx.Err()
			}
			now := *b
			g.Go(func() error {
				if err := c.write(ctx, conn, &now, columns); err != nil {
					return err
				}
				free <- conn
				return nil
			})
			select {
			case queue <- &now:
			case <-ctx.Done():
				return ctx.Err()
			}
			b.first, b.start = b.first+n, b.ends[n-1]
		}
		return nil
	})
	sent, noted := 0, 0
	for b := range queue {
		for range b.ends {
			var p part
			select {
			case p = <-b.parts:
			case <-ctx.Done():
				return g.Wait()
			}
			if c.snapshot.Columns == nil {
				c.snapshot.Columns = p.columns
			}
			if err := c.sendFile(p.name, p.path); err != nil {
				return err
			}
			sent++
			c.snapshot.Parts = append(c.snapshot.Parts, protocol.Part{File: p.name, Rows: p.rows, Stats: p.stats})
			if tenth := 10 * sent / len(ends); len(ends) > 1 && tenth > noted {
				noted = tenth
				if err := c.note("part %d of %d", sent, len(ends)); err != nil {
					return err
				}
			}
		}
	}
	c.sent += sent
	return g.Wait()
}

// write makes the parts of a batch.
func (c *cutter) write(ctx context.Context, conn *sql.Conn, b *batch, columns []protocol.Column) error {
	db := &database{conn: conn}
	negative, err := db.negativeZeros(ctx, b, columns)
	if err != nil {
		return err
	}
	var stats [][]protocol.ColumnStats
	var seen []protocol.Column
	for i := range b.ends {
		p := part{name: fmt.Sprintf("part-%06d.parquet", b.first+i)}
		p.path = filepath.Join(c.dir, p.name)
		options := partOptions
		if negative[i] {
			options = plainOptions
		}
		if p.rows, err = db.copyTo(ctx, b.rows(b.list, i, i+1), p.path, options); err != nil {
			return err
		}
		if want := b.size(i); p.rows != want {
			return fmt.Errorf("%s has %d rows, want %d", p.name, p.rows, want)
		}
		if err := db.checkExact(ctx, b.rows("*", i, i+1), parquet(p.path), columns); err != nil {
			return err
		}
		if i == 0 {
			// What a reader of the file sees, whatever the query's types were. It sees
			// the table's values too: what Parquet would change is refused.
			if seen, err = db.describeQuery(ctx, "SELECT * FROM "+parquet(p.path)); err != nil {
				return err
			}
			if stats, err = db.groupedStats(ctx, "("+b.grouped(b.list)+")", seen, len(b.ends)); err != nil {
				return err
			}
		}
		p.columns, p.stats = seen, stats[i]
		b.parts <- p
	}
	return nil
}

// negativeZeros tells which parts hold a -0.0 in some column.
func (db *database) negativeZeros(ctx context.Context, b *batch, columns []protocol.Column) ([]bool, error) {
	found := make([]bool, len(b.ends))
	list := identifiers(floatColumns(columns))
	if list == "" {
		return found, nil
	}
	rows, err := db.conn.QueryContext(ctx, fmt.Sprintf("SELECT DISTINCT %s FROM (%s) WHERE %s(%s) <> %s(%s)", groupColumn, b.grouped(list), rowhash.Hash, list, rowhash.Exact, list))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var i int
		if err := rows.Scan(&i); err != nil {
			return nil, err
		}
		found[i] = true
	}
	return found, rows.Err()
}

// checkExact refuses what Parquet changed on the way: an interval has milliseconds
// there, and a time with a zone loses it.
func (db *database) checkExact(ctx context.Context, rows, file string, columns []protocol.Column) error {
	for _, c := range columns {
		t := unquotedPart(c.Type)
		if !strings.Contains(t, "INTERVAL") && !strings.Contains(t, "TIME WITH TIME ZONE") {
			continue
		}
		hash := fmt.Sprintf("sum(CAST(%s(%s) AS HUGEINT))", rowhash.Exact, identifier(c.Name))
		var equal bool
		if err := db.conn.QueryRowContext(ctx, "SELECT (SELECT "+hash+" FROM ("+rows+")) IS NOT DISTINCT FROM (SELECT "+hash+" FROM "+file+")").Scan(&equal); err != nil {
			return err
		}
		if !equal {
			return dataError("column %q is %s and has values that Parquet would change (an INTERVAL there has whole milliseconds and is less than 50 days besides its months and days, a time has no zone but UTC): CAST it to VARCHAR", c.Name, shorten(c.Type, 100))
		}
	}
	return nil
}

func (c *cutter) answer(key []string) *protocol.Answer {
	for i := range c.snapshot.Columns {
		if slices.Contains(key, c.snapshot.Columns[i].Name) {
			c.snapshot.Columns[i].Nullable = false
		}
	}
	return &protocol.Answer{Snapshot: &c.snapshot, Rows: c.rows}
}

func parquet(paths ...string) string {
	return "read_parquet(" + literalList(paths) + ", hive_partitioning = false)"
}

// keyColumn is a column of a key: its name, and how a table calls it.
type keyColumn struct{ name, column string }

// checkKey refuses NULLs in the key and rows that share one, with examples.
func (e *execution) checkKey(ctx context.Context, key []string) error {
	columns := make([]keyColumn, len(key))
	for i, k := range key {
		columns[i] = keyColumn{k, k}
	}
	return e.checkKeyOf(ctx, rowsTable, columns)
}

func (e *execution) checkKeyOf(ctx context.Context, from string, key []keyColumn) error {
	if len(key) == 0 {
		return nil
	}
	names, own, texts := make([]string, len(key)), make([]string, len(key)), make([]string, len(key))
	for i, k := range key {
		names[i], own[i], texts[i] = k.name, k.column, "TRY(CAST("+identifier(k.column)+" AS VARCHAR))"
		var nulls int64
		if err := e.db.conn.QueryRowContext(ctx, "SELECT count(*) FROM "+from+" WHERE "+identifier(k.column)+" IS NULL").Scan(&nulls); err != nil {
			return err
		}
		if nulls > 0 {
			return dataError("key column %q is NULL in %s", k.name, count(nulls, "row"))
		}
	}
	columns := identifiers(own)
	duplicates := fmt.Sprintf("SELECT %s, count(*) AS n FROM %s GROUP BY ALL HAVING count(*) > 1", columns, from)
	var groups int64
	if err := e.db.conn.QueryRowContext(ctx, "SELECT count(*) FROM ("+duplicates+")").Scan(&groups); err != nil {
		return err
	}
	if groups == 0 {
		return nil
	}
	rows, err := e.db.conn.QueryContext(ctx, fmt.Sprintf("SELECT concat_ws(', ', %s), %s FROM (SELECT %s, count(*) AS %s FROM %s GROUP BY %s HAVING count(*) > 1 ORDER BY count(*) DESC, %s LIMIT 3)",
		strings.Join(texts, ", "), groupColumn, columns, groupColumn, from, columns, columns))
	if err != nil {
		return err
	}
	defer rows.Close()
	var examples []string
	for rows.Next() {
		var values string
		var n int64
		if err := rows.Scan(&values, &n); err != nil {
			return err
		}
		examples = append(examples, fmt.Sprintf("(%s) %d times", shorten(values, 100), n))
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return dataError("key (%s) is not unique: %s more than once, such as %s", strings.Join(names, ", "), have(groups), strings.Join(examples, ", "))
}

func have(groups int64) string {
	if groups == 1 {
		return "1 value occurs"
	}
	return fmt.Sprintf("%d values occur", groups)
}

func count(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
