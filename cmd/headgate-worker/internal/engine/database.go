package engine

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	_ "github.com/duckdb/duckdb-go/v2" // the database driver

	"github.com/headgate/headgate/cmd/headgate-worker/internal/rowhash"
	"github.com/headgate/headgate/exec/protocol"
)

// baseCatalog is the attached database whose tables are those of the old tip.
const baseCatalog = "base"

// database is one in-memory DuckDB with one connection: settings, temporary
// tables and the random seed are the connection's.
type database struct {
	pool *sql.DB
	conn *sql.Conn
	// writers are the connections that write parts, one for each thread; the first is conn.
	writers []*sql.Conn

	variables map[string]bool // that are set, in lower case
	threads   int             // that a query may have
	unlocked  bool            // settings can change: nobody's SQL runs but ours
}

// Version returns DuckDB's version: "v1.5.6".
func Version(ctx context.Context) (string, error) {
	db, err := connect(ctx)
	if err != nil {
		return "", err
	}
	defer db.close()
	var v string
	err = db.conn.QueryRowContext(ctx, "SELECT version()").Scan(&v)
	return v, err
}

func connect(ctx context.Context) (*database, error) {
	pool, err := sql.Open("duckdb", "")
	if err != nil {
		return nil, fmt.Errorf("open DuckDB: %w", err)
	}
	conn, err := pool.Conn(ctx)
	if err != nil {
		pool.Close()
		return nil, fmt.Errorf("open DuckDB: %w", err)
	}
	db := &database{pool: pool, conn: conn, writers: []*sql.Conn{conn}}
	if err := rowhash.Register(ctx, conn); err != nil {
		db.close()
		return nil, err
	}
	return db, nil
}

// connectWriters opens connections up to the given number.
func (db *database) connectWriters(ctx context.Context, n int) error {
	for len(db.writers) < n {
		conn, err := db.pool.Conn(ctx)
		if err != nil {
			return err
		}
		db.writers = append(db.writers, conn)
		// What the first connection has, and what a connection has of its own.
		for _, s := range []string{"SET errors_as_json = true", "SET TimeZone = 'UTC'"} {
			if _, err := conn.ExecContext(ctx, s); err != nil {
				return fmt.Errorf("%s: %w", s, err)
			}
		}
	}
	return nil
}

func (db *database) close() {
	for _, conn := range db.writers {
		conn.Close()
	}
	db.pool.Close()
}

// prepare makes the order's inputs views of the database, which from then on can
// reach no file but the order's own and whose settings are locked.
func (db *database) prepare(ctx context.Context, order *protocol.Order, dir string) error {
	threads := max(order.Threads, 1)
	db.threads, db.unlocked = threads, order.Op == protocol.OpCut
	settings := []string{
		"SET errors_as_json = true", // the only way to an error's position
		fmt.Sprintf("SET threads = %d", threads),
		"SET preserve_insertion_order = true",
		"SET TimeZone = 'UTC'",
		"SET autoinstall_known_extensions = false",
		"SET autoload_known_extensions = false",
		// Files are read once, so nothing is gained by memory that remembers them, nor
		// by asking before each read whether they have changed: 2,000 calls in a query.
		"SET enable_external_file_cache = false",
		"SET validate_external_file_cache = 'NO_VALIDATION'",
		"SET temp_directory = " + literal(filepath.Join(dir, "spill")),
		// random() is then repeatable, as far as one thread goes.
		"SELECT setseed(0.5)",
	}
	if order.Op == protocol.OpExport {
		// UUIDs and JSON as Arrow's types for them.
		settings = append(settings, "SET arrow_lossless_conversion = true")
	}
	if order.Progress {
		settings = append(settings, progressSettings...)
	}
	if smallFiles(order, threads) {
		// Whole column chunks, not pages: a quarter of the reads.
		settings = append(settings, "SET prefetch_all_parquet_files = true")
	}
	if order.MemoryLimit > 0 {
		settings = append(settings, fmt.Sprintf("SET memory_limit = '%dKiB'", max(order.MemoryLimit>>10, 1)))
	}
	for _, s := range settings {
		if err := db.exec(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	if err := db.connectWriters(ctx, threads); err != nil {
		return err
	}
	if err := db.setVariables(ctx, order); err != nil {
		return err
	}
	if order.Op == protocol.OpDescribe { // the first that looks at a pushed part
		for _, t := range order.Inputs {
			for _, f := range t.Files {
				if err := checkNesting(f); err != nil {
					return inFile(err, f)
				}
			}
		}
	}
	if order.Op != protocol.OpProject && order.Op != protocol.OpExport { // which read each input on its own
		if err := db.createInputs(ctx, order.Inputs); err != nil {
			return err
		}
	}
	// External access can be taken away but not given back, so the inputs come
	// first; views still read what allowed_directories names.
	last := []string{
		"SET allowed_directories = " + literalList(directories(order, dir)),
		"SET enable_external_access = false",
	}
	if !db.unlocked {
		last = append(last, "SET lock_configuration = true")
	}
	for _, s := range last {
		if err := db.exec(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

// onThreadsOfTheirOwn makes each query run on the thread that asks, until the function
// that it returns is called: two threads that share a query of some milliseconds
// spend half of them on each other.
func (db *database) onThreadsOfTheirOwn(ctx context.Context) (restore func() error, err error) {
	if !db.unlocked || db.threads == 1 {
		return func() error { return nil }, nil
	}
	if err := db.exec(ctx, "SET threads = 1"); err != nil {
		return nil, err
	}
	return func() error { return db.exec(ctx, fmt.Sprintf("SET threads = %d", db.threads)) }, nil
}

// Bounds of what may be read ahead: a file that is larger, or one for each thread,
// could have a column chunk that takes the memory that the query needs.
const (
	prefetchFile  = 64 << 20
	prefetchShare = 8 // of the memory limit
)

// smallFiles reports whether each thread can hold a whole input file.
func smallFiles(order *protocol.Order, threads int) bool {
	most := int64(prefetchFile)
	if order.MemoryLimit > 0 {
		most = min(most, order.MemoryLimit/prefetchShare/int64(threads))
	}
	inputs := order.Inputs
	if order.Prior != nil {
		inputs = append(inputs[:len(inputs):len(inputs)], *order.Prior)
	}
	fits := func(path string) bool {
		info, err := os.Stat(path)
		return err == nil && info.Size() <= most
	}
	for _, t := range inputs {
		for _, f := range t.Files {
			if !fits(f) {
				return false
			}
		}
	}
	for _, f := range append(mergedFiles(order), order.Files...) {
		if !fits(f) {
			return false
		}
	}
	return true
}

// mergedFiles returns the files of a merge that are there.
func mergedFiles(order *protocol.Order) []string {
	var files []string
	if order.Merge != nil {
		for _, s := range order.Merge.Segments {
			for _, list := range [][]string{s.Base, s.Ours, s.Theirs, s.Keep[:min(max(s.Staged, 0), len(s.Keep))]} {
				files = append(files, list...)
			}
		}
	}
	return files
}

// directories returns those that the order may read or write.
func directories(order *protocol.Order, dir string) []string {
	set := map[string]bool{dir + "/": true}
	for _, f := range append(mergedFiles(order), order.Files...) {
		set[filepath.Dir(f)+"/"] = true
	}
	inputs := order.Inputs
	if order.Prior != nil {
		inputs = append(inputs[:len(inputs):len(inputs)], *order.Prior)
	}
	for _, t := range inputs {
		for _, f := range t.Files {
			set[filepath.Dir(f)+"/"] = true
		}
	}
	list := make([]string, 0, len(set))
	for d := range set {
		list = append(list, d)
	}
	sort.Strings(list)
	return list
}

// createInputs makes a view of each input: "t" in the default schema, "ns.t" in
// schema ns, "base.t" and "base.ns.t" in the attached database base.
func (db *database) createInputs(ctx context.Context, inputs []protocol.Table) error {
	schemas := make(map[string]bool)
	for _, t := range inputs {
		segments := tableSegments(t.Name)
		if segments[0] == baseCatalog && len(segments) > 1 {
			if !schemas[baseCatalog] {
				schemas[baseCatalog] = true
				if err := db.exec(ctx, "ATTACH ':memory:' AS "+identifier(baseCatalog)); err != nil {
					return err
				}
			}
		} else {
			segments = append([]string{"memory"}, segments...)
		}
		if len(segments) == 2 {
			segments = []string{segments[0], "main", segments[1]}
		}
		if len(segments) != 3 {
			return dataError("table name %q: want name, namespace.name, or one of them after base", t.Name)
		}
		schema := identifier(segments[0]) + "." + identifier(segments[1])
		if segments[1] != "main" && !schemas[schema] {
			schemas[schema] = true
			if err := db.exec(ctx, "CREATE SCHEMA "+schema); err != nil {
				return err
			}
		}
		body, err := db.inputQuery(ctx, t)
		if err != nil {
			return err
		}
		if err := db.exec(ctx, "CREATE VIEW "+schema+"."+identifier(segments[2])+" AS "+body); err != nil {
			u := userError(err)
			u.Kind, u.Line, u.Column = kindData, 0, 0
			u.Message = fmt.Sprintf("table %q: %s", t.Name, u.Message)
			return u
		}
	}
	return db.revisionViews(ctx, inputs)
}

// inputQuery returns the SELECT behind an input's view. Columns are named, so
// that the schema in table.json, not the order of columns in a file, rules.
func (db *database) inputQuery(ctx context.Context, t protocol.Table) (string, error) {
	columns := t.Columns
	if len(t.Select) > 0 {
		known := make(map[string]protocol.Column, len(t.Columns))
		for _, c := range t.Columns {
			known[strings.ToLower(c.Name)] = c
		}
		columns = nil
		for _, name := range t.Select {
			c, ok := known[strings.ToLower(name)]
			if !ok {
				return "", dataError("table %q has no column %q; it has %s", t.Name, name, nameList(columnNames(t.Columns)))
			}
			columns = append(columns, c)
		}
	}
	filter := ""
	if t.Filter != "" {
		if err := db.checkFilter(ctx, t); err != nil {
			return "", err
		}
		filter = " WHERE (" + t.Filter + "\n)"
	}
	source := "read_parquet(" + literalList(t.Files) + ", hive_partitioning = false)"
	if len(t.Files) == 0 {
		if len(t.Columns) == 0 {
			return "", dataError("table %q has neither columns nor parts", t.Name)
		}
		// All columns are there, since a filter may use those not selected.
		empty := make([]string, len(t.Columns))
		for i, c := range t.Columns {
			empty[i] = fmt.Sprintf("CAST(NULL AS %s) AS %s", c.Type, identifier(c.Name))
		}
		source = "(SELECT " + strings.Join(empty, ", ") + " LIMIT 0)"
	}
	projection := "*"
	if len(columns) > 0 {
		projection = identifiers(columnNames(columns))
	}
	return "SELECT " + projection + " FROM " + source + filter, nil
}

// checkFilter makes sure that a filter is one expression before it is put
// between parentheses, where half of another query would parse too.
func (db *database) checkFilter(ctx context.Context, t protocol.Table) error {
	const before = "SELECT 1 WHERE "
	st, err := db.parse(ctx, before+t.Filter)
	if err == nil {
		err = db.checkVariables(st)
	}
	if err == nil {
		return nil
	}
	u := userError(err)
	if u.Line == 1 && u.Column > len(before) {
		u.Column -= len(before)
	}
	u.Message = fmt.Sprintf("filter of table %q: %s", t.Name, u.Message)
	return u
}

// exec runs one of our own statements.
func (db *database) exec(ctx context.Context, statement string) error {
	_, err := db.conn.ExecContext(ctx, statement)
	return err
}

// copyTo runs a COPY of the query to path and returns the number of rows.
func (db *database) copyTo(ctx context.Context, query, path, options string) (int64, error) {
	var rows int64
	err := db.conn.QueryRowContext(ctx, "COPY (\n"+query+"\n) TO "+literal(path)+" ("+options+")").Scan(&rows)
	return rows, err
}

const describePrefix = "DESCRIBE\n"

// describeQuery returns the names and types of a query's columns.
func (db *database) describeQuery(ctx context.Context, query string) ([]protocol.Column, error) {
	rows, err := db.conn.QueryContext(ctx, describePrefix+query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var columns []protocol.Column
	for rows.Next() {
		c := protocol.Column{Nullable: true}
		var null, key, deflt, extra any
		if err := rows.Scan(&c.Name, &c.Type, &null, &key, &deflt, &extra); err != nil {
			return nil, err
		}
		columns = append(columns, c)
	}
	return columns, rows.Err()
}

// identifier quotes a name for SQL.
func identifier(name string) string {
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

func identifiers(names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = identifier(n)
	}
	return strings.Join(quoted, ", ")
}

// literal quotes a text for SQL.
func literal(text string) string {
	return "'" + strings.ReplaceAll(text, "'", "''") + "'"
}

func literalList(texts []string) string {
	quoted := make([]string, len(texts))
	for i, t := range texts {
		quoted[i] = literal(t)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

func columnNames(columns []protocol.Column) []string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.Name
	}
	return names
}

// nameList writes names for a message, not all of them if they are many.
func nameList(names []string) string {
	const most = 20
	var b strings.Builder
	for i, n := range names {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(names)-most)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%q", n)
	}
	return b.String()
}
